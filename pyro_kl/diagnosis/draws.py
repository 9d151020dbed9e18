"""Draws of a guide: their log weights, their ELBO, the KL of each site and the latents' values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..elbo.enumeration.trace_enum_kl_elbo import TraceEnumKL_ELBO
from ..elbo.guides.plan import Plan, Run
from ..elbo.loss import Particle
from ..elbo.snapshot import per_particle
from ..elbo.terms import Term
from ..elbo.trace_kl_elbo import TraceKL_ELBO
from ..elbo.traces import Traces
from ..messages import see, without_link
from ..registry.warnings import quiet, warn
from . import by_vmap
from .chunk import Chunk, together
from .log_weights import elbo_of, log_weight, without_marks
from .refusals import check
from .rows import rows_of
from .supports import exceeding, lacking
from .wider import Wider, factor_of, log_ratio

#: So many numbers of the traces of all draws of a chunk are in memory at a time.
NUMBERS = 2**22
#: Ranges of the latents are read from so many draws, even if fewer are made at a time.
_GATHERED = 1000
#: The draws that show whether the model and the guide can make several at once.
_TRIED = 3


class Draws:
    """How draws of a guide are made: many at once, or one by one.

    Args:
        run: the model and the guide, with their arguments.
        num_samples: the number of draws in all.
        vectorize: whether to make many at once; None if that is to be found out.
        max_plate_nesting: as for `pyro.infer.Trace_ELBO`.

    Attributes:
        plan: how each latent is drawn.
        lacking: why the guide's draws miss a part of the evidence; empty if they do not.
        rows: the plate whose rows have weights of their own; None if there is none.
        shapes: latent -> the shape of its value in one draw.
        most: the number of draws of a chunk.
        plated: whether model and guide make many draws at once within a plate.
        by_vmap: whether they do by `torch.func.vmap`.
        first: a trace of the guide with one draw.
        nesting: the number of dims of plates.
        elbo: that runs model and guide.
        factor: of the sds of a wider guide; 1 if there is none.

    Raises:
        ValueError: the density of the guide, or the posterior, is not defined.
    """

    def __init__(
        self, run: Run, num_samples: int, vectorize: bool | None, max_plate_nesting: float
    ) -> None:
        self.elbo = elbo_of(run, max_plate_nesting)
        if isinstance(self.elbo, TraceEnumKL_ELBO):
            run = without_marks(run)
        self.run, self.num_samples = run, num_samples
        with quiet():
            # an autoguide has to see the model without a plate of draws first
            first = next(self.elbo._particles(run))
        self.plan: Plan = first.plan
        check(first.plan, first.traces)
        self.lacking = lacking(first.plan, first.traces)
        self._exceeding = exceeding(first.plan, first.traces)
        self.first = first.traces.guide
        self.nesting = _nesting(first.traces)
        self._owners = _owners(first.plan)
        self.rows = rows_of(first)
        self.shapes = {
            name: first.traces.guide.nodes[name]["value"].shape for name in self.plan.decisions
        }
        self._runs_the_model = isinstance(poutine.unwrap(run.guide), Messenger)
        self.factor = 1.0
        if not self._runs_the_model:
            self.factor = factor_of(first.traces.guide, self.rows.size if self.rows else 1)
        self.most = max(2, min(num_samples, NUMBERS // _numbers(first.traces)))
        self.plated = self.by_vmap = False
        if vectorize is not False:
            reason = self._why_one_by_one(max_plate_nesting)
            self.plated = not reason
            enumerates = isinstance(self.elbo, TraceEnumKL_ELBO)
            if reason and not self._runs_the_model and not enumerates:
                self.by_vmap = by_vmap.works(self, _TRIED)
            if self.plated or self.by_vmap:
                return
            if vectorize:
                raise ValueError(f"vectorize=True: {reason}." + see("one-by-one"))
            warn(f"The draws are made one by one: {reason}." + see("one-by-one"))

    # --- chunks ---------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Chunk]:
        """All draws, hundreds at a time where the latents are small enough for that."""
        latents = sum(shape.numel() for shape in self.shapes.values())
        count = max(1, min(_GATHERED, NUMBERS // max(1, latents)) // self.most)
        chunks = self._chunks()
        while held := list(itertools.islice(chunks, count)):
            yield together(held)

    def _chunks(self) -> Iterator[Chunk]:
        for size in self._sizes(self.num_samples):
            if self.by_vmap:
                yield by_vmap.chunk(self, size, of_guide=True)
                continue
            elbo = self.elbo._with_particles(size)
            each = size if self.plated else 1
            yield together([self._chunk(x, elbo, each) for x in elbo._particles(self.run)])

    def wider(self) -> Iterator[Chunk]:
        """Draws of the wider guide, half as many; none if there is no such guide."""
        count = self.all_samples - self.num_samples
        for size in self._sizes(count) if count else []:
            if self.by_vmap:
                yield by_vmap.chunk(self, size, of_guide=False)
            elif self.plated:
                yield self._wider(size)
            else:
                yield together([self._wider(1) for _ in range(size)])

    def _wider(self, size: int) -> Chunk:
        elbo = self.elbo._with_particles(size)
        with Wider(self.factor):
            traces = self.traces(elbo, self.run.guide)
        return self.of(traces, elbo, size)

    def traces(self, elbo: TraceKL_ELBO, guide: Callable[..., Any]) -> Traces:
        run = self.run
        return Traces(*next(elbo._get_traces(run.model, guide, run.args, run.kwargs)))

    def _sizes(self, count: int) -> list[int]:
        """The numbers of draws that are made at once."""
        most = self.most
        return [len(part) for part in torch.arange(count).tensor_split(math.ceil(count / most))]

    def _chunk(self, particle: Particle, elbo: TraceKL_ELBO, size: int) -> Chunk:
        """The draws of one pair of traces of the guide."""
        if particle.plan.decisions.keys() != self.shapes.keys():
            raise ValueError(
                f"A draw has the latents {', '.join(particle.plan.decisions)}, another one "
                f"{', '.join(self.shapes)}: diagnose() needs the same in all draws."
                + see("one-by-one")
            )
        found = self.of(particle.traces, elbo, size)
        return self.with_terms(found, particle.collected.terms, elbo, size)

    def with_terms(self, found: Chunk, terms: list[Term], elbo: TraceKL_ELBO, size: int) -> Chunk:
        """The same draws with their ELBO and KLs."""
        total = found.elbo
        kls: dict[str, Tensor] = {}
        for term in terms:
            value = self._of_each(term.value, elbo._plate, size)
            total = total + (value if term.kind == "likelihood" else -value)
            if owner := self._owners.get(term.name):
                kls[owner] = kls[owner] + value if owner in kls else value
        return replace(found, elbo=total, kls=kls)

    def of(self, traces: Traces, elbo: TraceKL_ELBO, size: int) -> Chunk:
        """Weights and values of one pair of traces."""
        nodes, plate = traces.guide.nodes, elbo._plate
        logs = log_weight(traces, elbo, self.run.guide)
        ratios = log_ratio(traces.guide, self.factor) if self.factor > 1 else []
        zero = torch.zeros((size, self.rows.size) if self.rows else size, dtype=torch.float64)
        return Chunk(
            log_weights=zero + sum(self._of_each(x, plate, size) for x in logs),
            log_ratios=zero + sum(self._of_each(x, plate, size) for x in ratios),
            elbo=zero,
            kls={},
            values={
                name: nodes[name]["value"].double().cpu().reshape(size, *shape)
                for name, shape in self.shapes.items()
            },
        )

    def _of_each(self, value: Tensor, plate: int, size: int) -> Tensor:
        """One number for each draw, or for each row of each draw: the others are summed."""
        value = value.double()
        if not self.rows:
            return per_particle(value, plate, size).cpu().expand(size)
        rows, count = self.rows.dim, self.rows.size
        if plate and value.dim() >= plate and value.shape[-plate] == size:
            return value.movedim((-plate, rows), (0, 1)).reshape(size, count, -1).sum(-1).cpu()
        return value.movedim(rows, 0).reshape(1, count, -1).sum(-1).cpu().expand(size, -1)

    def by_row(self, chunk: Chunk) -> list[Chunk]:
        """The draws of each row; all of them if the rows have no weights of their own."""
        return [chunk.row(self.rows, i) for i in range(self.rows.size)] if self.rows else [chunk]

    def many(self, function: Callable[..., Any], size: int) -> Callable[..., Any]:
        """A model or a guide that makes several draws at once."""
        if not self.plated:
            return function
        return self.elbo._with_particles(size)._vectorized_num_particles(function)

    @property
    def all_samples(self) -> int:
        """The number of draws, with those of the wider guide."""
        return self.num_samples + (self.num_samples // 2 if self.factor > 1 else 0)

    @property
    def continuous(self) -> set[str]:
        """The latents that have a density."""
        nodes = self.first.nodes
        return {name for name in self.shapes if not _is_discrete(nodes[name]["fn"])}

    @property
    def rounding(self) -> float:
        """Of a density, relative to its logarithm."""
        values = [self.first.nodes[name]["value"] for name in self.shapes]
        types = [x.dtype for x in values if x.is_floating_point()]
        return max((torch.finfo(dtype).eps for dtype in types), default=0.0)

    # --- many at once ---------------------------------------------------------------------------

    def _why_one_by_one(self, max_plate_nesting: float) -> str:
        """Why the model and the guide cannot make several draws at once; empty if they can.

        The same draws are made once more, one by one: a model that adds up the wrong dimension
        raises no error, but has another density.
        """
        if self._runs_the_model:
            return (
                "a GuideMessenger runs the model itself, so that the guide alone cannot be tried"
            )
        elbo = type(self.elbo)(
            num_particles=_TRIED,
            vectorize_particles=True,
            max_plate_nesting=max_plate_nesting,
            strict_enumeration_warning=False,
        )
        elbo._warned = self.elbo._warned
        try:
            mixed = self._mixed(elbo)
        except by_vmap.FAILURES as error:
            if self._exceeding and "to be within the support" in str(error):
                raise  # one by one, draws would be outside of the support too
            first_line = without_link(error).partition("\n")[
                0
            ]  # Pyro adds the shapes of all sites
            return f"{type(error).__name__} for several at once, {first_line}"
        if not mixed:
            self.elbo = elbo
        return mixed

    def _mixed(self, elbo: TraceKL_ELBO) -> str:
        """Where a draw has another weight among others than alone; empty if it has the same."""
        particle = next(elbo._particles(self.run))
        several = self._chunk(particle, elbo, _TRIED)
        values = by_vmap.values_of(self, particle.traces.guide, elbo._plate, _TRIED)
        for i in range(_TRIED):
            traces = by_vmap.traces_at(self, {name: value[i] for name, value in values.items()})
            logs = log_weight(traces, self.elbo, self.run.guide)
            among = float(several.log_weights[i].sum())
            alone = sum(float(x.double().sum()) for x in logs)
            if not self.close(among, alone):
                return (
                    f"the same draw has the log weight {among:.6g} among others, {alone:.6g} "
                    "alone, so that draws are mixed somewhere in the model or the guide"
                )
        return ""

    @staticmethod
    def close(a: float, b: float) -> bool:
        """Whether two log weights are equal up to rounding."""
        return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-3) or (math.isnan(a) and math.isnan(b))


def _is_discrete(distribution: Any) -> bool:
    try:
        return bool(distribution.support.is_discrete)
    except NotImplementedError:  # a class of the user's
        return False


def _owners(plan: Plan) -> dict[str, str]:
    """Site -> the latent whose KL its term belongs to: its own, or the only one of its group."""
    members: dict[str, list[str]] = {}
    for name in plan.decisions:
        members.setdefault(plan.groups.get(name, name), []).append(name)
    owners = {name: name for name in plan.decisions}
    for name in plan.auxiliary:
        latents = members.get(plan.groups.get(name, name), [])
        if len(latents) == 1:
            owners[name] = latents[0]
    return owners


def _nesting(traces: Traces) -> int:
    frames = [
        frame
        for trace in traces
        for node in trace.nodes.values()
        if node["type"] == "sample"
        for frame in node["cond_indep_stack"]
    ]
    return max((-frame.dim for frame in frames if frame.vectorized), default=0)


def _numbers(traces: Traces) -> int:
    """How many numbers one draw takes: values and densities of all sites."""
    return sum(
        node["value"].numel() + max(1, math.prod(node["fn"].batch_shape))
        for trace in traces
        for node in trace.nodes.values()
        if node["type"] == "sample" and isinstance(node["value"], Tensor)
    )
