"""Draws of a guide: their log weights, their ELBO, the KL of each site and the latents' values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace as PyroTrace
from torch import Tensor

from ..elbo.guides.plan import Plan, Run
from ..elbo.guides.recognise import is_delta
from ..elbo.loss import Particle
from ..elbo.snapshot import per_particle
from ..elbo.trace_kl_elbo import TraceKL_ELBO
from ..elbo.traces import Trace, Traces
from ..messages import see, without_link
from ..registry.warnings import quiet, warn
from .refusals import check

#: So many numbers of the traces of all draws of a chunk are in memory at a time.
NUMBERS = 2**22
#: The draws that show whether the model and the guide can make several at once.
_TRIED = 3


@dataclass(frozen=True)
class Chunk:
    """Some draws; every tensor is float64, and the draws are its first dimension.

    Attributes:
        log_weights: log p(data, latents) - log q(latents).
        elbo: log likelihood minus the KL of each site, exact where it can be.
        kls: latent -> its KL to its prior.
        values: latent -> its values.
    """

    log_weights: Tensor
    elbo: Tensor
    kls: dict[str, Tensor]
    values: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.log_weights)


class Draws:
    """How draws of a guide are made: many at once, or one by one.

    Args:
        run: the model and the guide, with their arguments.
        num_samples: the number of draws in all.
        vectorize: whether to make many at once; None if that is to be found out.
        max_plate_nesting: as for `pyro.infer.Trace_ELBO`.

    Attributes:
        plan: how each latent is drawn.
        shapes: latent -> the shape of its value in one draw.
        at_once: the number of draws of a chunk; 1 if they are made one by one.

    Raises:
        ValueError: the density of the guide, or the posterior, is not defined.
    """

    def __init__(
        self, run: Run, num_samples: int, vectorize: bool | None, max_plate_nesting: float
    ) -> None:
        self.run, self.num_samples = run, num_samples
        self._elbo = TraceKL_ELBO(max_plate_nesting=max_plate_nesting)
        with torch.no_grad(), quiet():
            # an autoguide has to see the model without a plate of draws first
            first = next(self._elbo._particles(run))
        self.plan: Plan = first.plan
        check(first.plan, first.traces)
        self._first = first.traces.guide
        self.shapes = {name: first.traces.guide.nodes[name]["value"].shape for name in self.plan.decisions}
        self.at_once = 1
        if vectorize is not False:
            reason = self._why_one_by_one(max_plate_nesting)
            if not reason:
                self.at_once = max(2, min(num_samples, NUMBERS // _numbers(first.traces)))
            elif vectorize:
                raise ValueError(f"vectorize=True: {reason}." + see("batch-shapes"))
            else:
                warn(f"The draws are made one by one: {reason}." + see("batch-shapes"))

    # --- chunks ---------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Chunk]:
        """All draws."""
        sizes = [self.num_samples]
        if self.at_once > 1:
            count = math.ceil(self.num_samples / self.at_once)
            sizes = [len(part) for part in torch.arange(self.num_samples).tensor_split(count)]
        for size in sizes:
            with torch.no_grad(), quiet():
                elbo = self._elbo._with_particles(size)
                for particle in elbo._particles(self.run):
                    yield self._chunk(particle, elbo._plate, size if elbo._plate else 1)

    def _chunk(self, particle: Particle, plate: int, size: int) -> Chunk:
        """The draws of one pair of traces."""

        def of_each(value: Tensor) -> Tensor:
            return per_particle(value.double(), plate, size).expand(size)

        elbo = torch.zeros(size, dtype=torch.float64)
        kls: dict[str, Tensor] = {}
        for term in particle.collected.terms:
            value = of_each(term.value)
            if term.kind == "likelihood":
                elbo = elbo + value
            else:
                elbo = elbo - value
                kls[term.name] = value
        nodes = particle.traces.guide.nodes
        return Chunk(
            log_weight(particle.traces, of_each),
            elbo,
            {name: kl for name, kl in kls.items() if name in self.plan.decisions},
            {
                name: nodes[name]["value"].double().reshape(size, *shape)
                for name, shape in self.shapes.items()
            },
        )

    def many(self, function: Callable[..., Any], size: int) -> Callable[..., Any]:
        """A model or a guide that makes several draws at once."""
        return self._elbo._with_particles(size)._vectorized_num_particles(function)

    @property
    def rounding(self) -> float:
        """Of a density, relative to its logarithm."""
        values = [self._first.nodes[name]["value"] for name in self.shapes]
        types = [x.dtype for x in values if x.is_floating_point()]
        return max((torch.finfo(dtype).eps for dtype in types), default=0.0)

    # --- many at once ---------------------------------------------------------------------------

    def _why_one_by_one(self, max_plate_nesting: float) -> str:
        """Why the model and the guide cannot make several draws at once; empty if they can.

        The same draws are made once more, one by one: a model that adds up the wrong dimension
        raises no error, but has another density.
        """
        elbo = TraceKL_ELBO(
            num_particles=_TRIED, vectorize_particles=True, max_plate_nesting=max_plate_nesting
        )
        with torch.no_grad(), quiet():
            try:
                particle = next(elbo._particles(self.run))
                together = self._chunk(particle, elbo._plate, _TRIED)
            except (ValueError, RuntimeError, IndexError) as error:
                return f"{type(error).__name__} for several at once, {without_link(error)}"
            for i in range(_TRIED):
                alone = self._again(particle.traces.guide, elbo._plate, i)
                both = float(together.log_weights[i]), alone
                if not _close(*both):
                    return (
                        "the same draw has the log weight {:.6g} among others, {:.6g} alone".format(*both)
                        + ", so that draws are mixed somewhere in the model or the guide"
                    )
        self._elbo = elbo
        return ""

    def _again(self, trace: Trace, plate: int, i: int) -> float:
        """The log weight of one draw of many, computed by itself."""
        run, given = self.run, PyroTrace()
        for name, node in self._first.nodes.items():
            if node["type"] == "sample" and not node["is_observed"] and not is_delta(node["fn"]):
                value = trace.nodes[name]["value"]
                place = value.dim() - node["fn"].event_dim - plate
                if place >= 0 and value.shape[place] == _TRIED:
                    value = value.select(place, i)
                given.nodes[name] = {**node, "value": value.reshape(node["value"].shape)}
        guide = poutine.trace(poutine.replay(run.guide, trace=given)).get_trace(*run.args, **run.kwargs)
        model = poutine.trace(poutine.replay(run.model, trace=guide)).get_trace(*run.args, **run.kwargs)
        return float(log_weight(Traces(model, guide), lambda value: value.double().sum()))


def log_weight(traces: Traces, of_each: Any) -> Tensor:
    """Log p(data, latents) - log q(latents), with all sites of the guide in log q.

    Args:
        traces: of model and guide.
        of_each: sums the elements of a site in each draw.
    """
    total: Any = 0.0
    for trace, sign in zip(traces, (1, -1), strict=True):
        trace.compute_log_prob()
        for node in trace.nodes.values():
            if node["type"] == "sample":
                total = total + sign * of_each(node["log_prob"])
    return total


def _close(a: float, b: float) -> bool:
    return a == b or math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-3)


def _numbers(traces: Traces) -> int:
    """How many numbers one draw takes: values and densities of all sites."""
    return sum(
        node["value"].numel() + max(1, math.prod(node["fn"].batch_shape))
        for trace in traces
        for node in trace.nodes.values()
        if node["type"] == "sample" and isinstance(node["value"], Tensor)
    )
