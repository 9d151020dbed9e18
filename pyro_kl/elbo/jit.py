"""JitTraceKL_ELBO: the gradient step traced once."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import MethodType
from typing import Any

import pyro.ops.jit
import torch
from pyro.infer.util import torch_item
from pyro.util import warn_if_nan
from torch import Tensor

from ..messages import see
from ..registry.provenance import recording
from ..registry.warnings import warn_once, without_tracer_warnings
from .guides.plan import Run
from .loss import Particle
from .snapshot import Snapshot
from .trace_kl_elbo import TraceKL_ELBO

_SHORT = (
    "in this step the integral's error is {:.2g} times the tolerance. A traced step keeps its "
    "number of nodes, and the parameters have moved; TraceKL_ELBO takes as many as it needs."
)


def _identity(function: Any) -> Any:
    """An identity of a function; each access of a bound method makes a new object."""
    if isinstance(function, MethodType):
        return id(function.__self__), id(function.__func__)
    return id(function)


class JitTraceKL_ELBO(TraceKL_ELBO):
    """`TraceKL_ELBO` whose gradient step is traced once by `pyro.ops.jit` and then replayed.

    The limits are those of `pyro.infer.JitTrace_ELBO`: static structure, all tensors in `*args`,
    everything else in `**kwargs`. Schedules go in as inputs of the traced function, so that they
    work; `report` is that of the last step.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.control_variate is not None:
            raise ValueError(
                "JitTraceKL_ELBO has no control_variate; use TraceKL_ELBO." + see("option")
            )
        if self.likelihood == "exact":
            raise ValueError(
                'JitTraceKL_ELBO has no likelihood="exact"; use TraceKL_ELBO.' + see("option")
            )
        if self._has_hook:
            raise ValueError(
                f"{type(self).__name__} overrides _differentiable_loss_particle, which "
                "JitTraceKL_ELBO does not call; derive from TraceKL_ELBO." + see("elbo-subclass")
            )
        self._traced: dict[Any, tuple[Any, Any, Callable[..., Any]]] = {}
        self._templates: list[tuple[Snapshot, list[str]]] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_traced": {}, "_templates": []}

    def _compiled(self, model: Any, guide: Any) -> Callable[..., Any]:
        """The traced function for a model and a guide, to which it holds references.

        It returns loss, surrogate, the number of the template of its report (a constant of each
        trace: Pyro makes one for each set of keyword arguments), the error of each integral as a
        multiple of its tolerance, and the tensors of the report.
        """
        key = _identity(model), _identity(guide)
        if key not in self._traced:
            weakself = weakref.ref(self)

            def loss_and_surrogate(levels: Tensor, *args: Any, **kwargs: Any) -> Any:
                elbo = weakself()
                assert elbo is not None
                with recording() as uses:
                    result = elbo._evaluate(Run(model, guide, args, kwargs), levels)
                assert elbo._snapshot is not None
                excess = {use.pair: use.excess for use in uses if use.excess is not None}
                elbo._templates.append((elbo._snapshot, list(excess)))
                like = levels.new_zeros(())
                return (
                    like + result.loss,
                    like + result.surrogate,
                    torch.full((), len(elbo._templates) - 1),
                    torch.stack(list(excess.values())) if excess else like,
                    *elbo._snapshot.tensors(),
                )

            trace = pyro.ops.jit.trace(
                ignore_warnings=self.ignore_jit_warnings, jit_options=self.jit_options
            )
            self._traced[key] = model, guide, trace(loss_and_surrogate)
        return self._traced[key][2]

    def _by_plan(self, *args: Any, **kwargs: Any) -> Particle:
        with without_tracer_warnings():
            return super()._by_plan(*args, **kwargs)

    def _run_traced(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        levels = self.objective.levels(self.step_count)
        inputs = torch.tensor(levels if levels else [1.0])
        step = self._compiled(model, guide)
        loss, surrogate, index, excess, *tensors = step(inputs, *args, **kwargs)
        template, pairs = self._templates[int(index)]
        for pair, times in zip(pairs, excess.tolist() if pairs else (), strict=True):
            if times > 1:
                warn_once(
                    f"traced {pair}",
                    f"KL({pair}): {_SHORT.format(times)}" + see("integral-short-of-tolerance"),
                )
        self._keep(template.with_tensors(tensors, self.step_count, levels))
        self.step_count += 1
        warn_if_nan(loss, "loss")
        return loss, surrogate

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        """As `TraceKL_ELBO.differentiable_loss`; tensors in `args`, all else in `kwargs`."""
        loss, surrogate = self._run_traced(model, guide, args, kwargs)
        return loss + (surrogate - surrogate.detach())

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """As `TraceKL_ELBO.loss_and_grads`; tensors in `args`, all else in `kwargs`."""
        loss, surrogate = self._run_traced(model, guide, args, kwargs)
        if surrogate.requires_grad:
            surrogate.backward(retain_graph=self.retain_graph)
        return torch_item(loss)
