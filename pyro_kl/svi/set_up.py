"""The run of model and guide before a step is recorded: it makes parameters and plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..elbo.trace_kl_elbo import TraceKL_ELBO
from .eager import UsedParameters


class _FirstSample(Messenger):
    """Keeps the state of the generator at the first sample statement of a run."""

    def __init__(self) -> None:
        super().__init__()
        self.state: Tensor | None = None

    def _pyro_sample(self, msg: Any) -> None:
        if self.state is None:
            self.state = torch.get_rng_state()


@dataclass(frozen=True)
class SetUp:
    """What the run before a recording has found.

    Attributes:
        parameters: name -> unconstrained leaf of each parameter that model and guide read; a leaf
            with two names has the same one as in a step by `Eager`.
        names: of all parameters that they read.
        loss: of the run, in nats.
        methods: site -> how its KL was computed, for a TraceKL_ELBO.
    """

    parameters: dict[str, Tensor]
    names: set[str]
    loss: float
    methods: dict[str, str]


def set_up(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    elbo: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> SetUp:
    """Evaluate the loss once, and put the generator back to where the first step starts.

    That is where it was; but if the run has made parameters, whose starting values may be drawn,
    it is at the first sample statement after that, as in a first step by Pyro's SVI.
    """
    before, known = torch.get_rng_state(), set(pyro.get_param_store().keys())
    with _FirstSample() as first, UsedParameters() as used:
        loss = elbo.loss(model, guide, *args, **kwargs)
    makes_parameters = set(pyro.get_param_store().keys()) != known
    torch.set_rng_state(first.state if makes_parameters and first.state is not None else before)
    methods = {}
    if isinstance(elbo, TraceKL_ELBO):
        methods = {row.site: row.method for row in elbo.report}
    return SetUp(used.distinct(), set(used.leaves), float(loss), methods)
