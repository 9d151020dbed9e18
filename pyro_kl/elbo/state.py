"""What a `TraceKL_ELBO` carries from one step to the next: for checkpoints of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .trace_kl_elbo import TraceKL_ELBO


def elbo_state(elbo: Any) -> dict[str, Any]:
    """The step of the schedules, the averages of baselines and of the control variate.

    Pyro's own ELBOs have nothing of this kind; theirs is empty.
    """
    if not isinstance(elbo, TraceKL_ELBO):
        return {}
    control = elbo.control_variate
    return {
        "step_count": elbo.step_count,
        "baselines": [
            [name, list(shape), average]
            for (name, shape), average in elbo._baselines._averages.items()
        ],
        "control_variate": control and [control.coefficient, control._cross, control._square],
    }


def load_elbo_state(elbo: Any, state: Mapping[str, Any]) -> None:
    """Go on from a state that `elbo_state` returned."""
    if not state:
        return
    elbo.step_count = state["step_count"]
    elbo._baselines._averages = {
        (name, torch.Size(shape)): average for name, shape, average in state["baselines"]
    }
    control = elbo.control_variate
    if control is not None and state["control_variate"] is not None:
        control.coefficient, control._cross, control._square = state["control_variate"]
