"""Many draws at once by `torch.func.vmap`, for models that a plate of draws would change.

`features @ w` is such a model: with a dimension of draws on the left of w it is another product.
The guide draws within a plate; then model and guide run at each draw, as for a single one, and
vmap adds the dimension inside of every operation.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace as PyroTrace
from torch import Tensor

from ..elbo.collect import auxiliary, compute_densities, latent, likelihood
from ..elbo.guides.recognise import is_delta
from ..elbo.snapshot import per_particle
from ..elbo.terms import Term
from ..elbo.trace_kl_elbo import TraceKL_ELBO
from ..elbo.traces import Traces
from .chunk import Chunk
from .wider import Wider

if TYPE_CHECKING:
    from .draws import Draws

#: What a model may raise that was not written for many draws.
FAILURES = (
    ValueError, RuntimeError, LookupError, NotImplementedError, TypeError, AttributeError,
)  # fmt: skip


def values_of(draws: Draws, trace: Any, plate: int, size: int) -> dict[str, Tensor]:
    """The guide's own values of all draws, which are the first dimension.

    Args:
        draws: how they are made.
        trace: of the guide within a plate of draws.
        plate: distance from the right of the dim of that plate.
        size: the number of draws.
    """
    found = {}
    for name, node in draws.first.nodes.items():
        if node["type"] == "sample" and not node["is_observed"] and not is_delta(node["fn"]):
            value, shape = trace.nodes[name]["value"], node["value"].shape
            place = value.dim() - node["fn"].event_dim - plate
            if place >= 0 and value.shape[place] == size:
                found[name] = value.movedim(place, 0).reshape(size, *shape)
            else:
                found[name] = value.reshape(shape).expand(size, *shape)
    return found


def traces_at(draws: Draws, values: dict[str, Tensor]) -> Traces:
    """Model and guide at one draw."""
    given: Any = PyroTrace()
    for name, value in values.items():
        given.nodes[name] = {**draws.first.nodes[name], "value": value}
    return draws.traces(draws.elbo, poutine.replay(draws.run.guide, trace=given))


def chunk(draws: Draws, size: int, of_guide: bool) -> Chunk:
    """Draws of the guide or of the wider one."""
    values, _ = _drawn(draws, size, of_guide)
    return _at(draws, values, of_guide)


def works(draws: Draws, size: int) -> bool:
    """Whether some draws have the weights that each has alone, and the guide's densities."""
    try:
        values, log_q = _drawn(draws, size, of_guide=True)
        together = _at(draws, values, of_guide=True).log_weights
    except FAILURES:
        return False
    for i in range(size):
        traces = traces_at(draws, {name: value[i] for name, value in values.items()})
        alone = draws.of(traces, draws.elbo, 1).log_weights
        if not draws.close(float(together[i].sum()), float(alone.sum())):
            return False
        if not draws.close(float(log_q[i]), float(_log_q(traces.guide, 0, 1))):
            return False
    return True


def _drawn(draws: Draws, size: int, of_guide: bool) -> tuple[dict[str, Tensor], Tensor]:
    """The guide's own values, and their log densities within a plate of draws."""
    elbo = TraceKL_ELBO(
        num_particles=size,
        vectorize_particles=True,
        max_plate_nesting=draws.nesting,
    )
    run = draws.run
    with contextlib.nullcontext() if of_guide else Wider(draws.factor):
        guide = elbo._vectorized_num_particles(run.guide)
        trace = poutine.trace(guide).get_trace(*run.args, **run.kwargs)
    plate = int(elbo.max_plate_nesting)
    return values_of(draws, trace, plate, size), _log_q(trace, plate, size)


def _log_q(trace: Any, plate: int, size: int) -> Tensor:
    trace.compute_log_prob()
    nodes = [node for node in trace.nodes.values() if node["type"] == "sample"]
    return sum(
        (per_particle(node["log_prob"].double(), plate, size).expand(size) for node in nodes),
        torch.zeros(size, dtype=torch.float64),
    )


def _at(draws: Draws, values: dict[str, Tensor], of_guide: bool) -> Chunk:
    """The draws of some values of the guide."""

    def one(values: dict[str, Tensor]) -> dict[str, Any]:
        traces = traces_at(draws, values)
        found = draws.of(traces, draws.elbo, 1)
        if of_guide:
            found = draws.with_terms(found, _terms(draws, traces), draws.elbo, 1)
        return vars(found)

    with pyro.validation_enabled(False):
        found = torch.func.vmap(one)(values)
    flat = {
        key: {name: y.flatten(0, 1) for name, y in x.items()}
        if isinstance(x, dict)
        else x.flatten(0, 1)
        for key, x in found.items()
    }
    return Chunk(**flat)  # type: ignore[arg-type]


def _terms(draws: Draws, traces: Traces) -> list[Term]:
    """The terms of the ELBO by the plan, which was made and checked outside of vmap."""
    plan = draws.plan
    compute_densities(plan, traces, every_density=False)
    return [
        *(likelihood(traces.model.nodes[name]) for name in plan.observed),
        *(latent(how, traces) for how in plan.decisions.values()),
        *(auxiliary(traces.guide.nodes[name]) for name in plan.auxiliary),
    ]
