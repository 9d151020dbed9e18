"""The run of model and guide before a step is recorded: it makes parameters and plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..elbo.trace_kl_elbo import TraceKL_ELBO
from .used_parameters import UsedParameters


@dataclass(frozen=True)
class SetUp:
    """What the run before a recording has found.

    Attributes:
        parameters: name -> unconstrained leaf of each parameter that model and guide read; a leaf
            with two names has the same one as in a step by `Eager`.
        names: of all parameters that they read.
        loss: of the run, in nats.
        end: the state of torch's generator after the run.
        methods: site -> how its KL was computed, for a TraceKL_ELBO.
    """

    parameters: dict[str, Tensor]
    names: set[str]
    loss: float
    end: Tensor
    methods: dict[str, str]


def set_up(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    elbo: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> SetUp:
    """Evaluate the loss once; the generators move as in a step.

    Parameters have been made before: a first step is taken as usual, since the starting values of
    parameters may be drawn between other draws.
    """
    with UsedParameters() as used:
        loss = elbo.loss(model, guide, *args, **kwargs)
    methods = {}
    if isinstance(elbo, TraceKL_ELBO):
        methods = {row.site: row.method for row in elbo.report}
    return SetUp(used.distinct(), set(used.leaves), float(loss), torch.get_rng_state(), methods)
