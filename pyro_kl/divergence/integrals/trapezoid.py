"""Sums at nodes that cover two densities of declared families, for all rows of a batch at once.

The nodes are those of the KL's integrals, on the line of one of the two, but both densities lie
between the outermost ones. A row counts as settled if both densities sum to 1 and the error is as
small as that of panels; the others are left to `panels`, which look for what is hidden from this
rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...numerics.concrete import can_be_read
from ...numerics.dtypes import Parameters, in_float64
from ...numerics.quadrature.adaptive import CACHED
from ...numerics.quadrature.integrand import COVERED
from ...numerics.quadrature.rule import ROUNDING, extrapolated, left_over, patterns
from ...registry.family import Family
from ...registry.reduction import canonicalise
from ...registry.register import family_of
from ...registry.shapes import broadcast_batch, nan_in
from ...registry.subclasses import class_of
from .covering_nodes import CoveringNodes
from .log_densities import LogDensities
from .panels import AIM
from .rows import as_declared

#: Of log p and log q with respect to a place on the line, what is summed; no term is negative.
Terms = Callable[[Tensor, Tensor], Tensor]
#: Nodes of the line in each attempt, or of a piece between kinks.
_COUNTS = (145, 289, 577)
#: A batch of more rows tries an attempt with a few of them, so many.
_MANY, _FEW = 128, 16
#: The error of a sum of terms may be so many times that of the sums of both densities.
_NOISE = 8.0
#: The error of a settled row was up to 4.3 times the estimate in 250,000 random rows.
_CAUTION = 5.0
#: The integrand is assumed to fall no faster than exp(-10) over its window.
_FASTEST = 10.0


class Summed(NamedTuple):
    """A sum with a graph, the estimate of its error, and the rows where no better one is needed.

    A row with a parameter that is nan is such a row, and nan.
    """

    value: Tensor
    error: Tensor
    settled: Tensor
    nodes: int


def summed(p: Distribution, q: Distribution, terms: Terms, trust: float) -> Summed | None:
    """The integral of terms; None if p or q is not of a declared family with the same support.

    Args:
        p: the first distribution.
        q: the second one.
        terms: of log p and log q.
        trust: how far their spectrum can be extrapolated, as in `extrapolated`.
    """
    p, q = (as_declared(canonicalise(x)) for x in (p, q))
    of_p, of_q = _declared(p), _declared(q)
    if of_p is None or of_q is None or not _alike(of_p, of_q):
        return None
    shape = broadcast_batch(p, q)
    parameters = [
        {
            name: in_float64(x).expand(shape).reshape(-1)
            for name, x in family.of(distribution).items()
        }
        for family, distribution in zip((of_p, of_q), (p, q), strict=True)
    ]
    tensors = [x for each in parameters for x in each.values()]
    if not all(can_be_read(x) for x in tensors):
        return None
    rule = _Rule((of_p, of_q), (parameters[0], parameters[1]), terms, trust)
    with torch.no_grad():
        rule.solve()
    value = rule.value
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        value = _Total.apply(rule, *tensors)
    unknown = nan_in(tensors)
    value, error = torch.where(unknown, math.nan, value), torch.where(unknown, 0.0, rule.error)
    settled = unknown | rule.settled
    return Summed(value.reshape(shape), error.reshape(shape), settled.reshape(shape), rule.nodes)


def _declared(distribution: Any) -> Family | None:
    family = family_of(type(distribution))
    if family is None or family.line is None:
        return None
    return family if family.distribution is class_of(distribution) else None


def _alike(p: Family, q: Family) -> bool:
    """Whether the supports are one, and no circle."""
    ends = [(x.support.low, x.support.high, x.support.period) for x in (p, q)]
    if any(callable(end) for each in ends for end in each):
        return False
    return ends[0] == ends[1] and ends[0][2] is None


class _Block(NamedTuple):
    """Rows that are settled by the same attempt on the line of p (number 0) or of q (1)."""

    number: int
    rows: Tensor
    window: tuple[Tensor, Tensor]
    per_piece: int


class _Rule:
    """The sums of all rows, each on the line that is better for it.

    Attributes:
        value: the sum of each row.
        error: the estimate of its error.
        settled: whether it is exact enough.
        nodes: the largest number of nodes that a settled row took.
    """

    def __init__(
        self,
        families: tuple[Family, Family],
        parameters: tuple[Parameters, Parameters],
        terms: Terms,
        trust: float,
    ) -> None:
        self.terms, self.trust = terms, trust
        lines = families[0].line, families[1].line
        assert lines[0] is not None
        assert lines[1] is not None
        names = tuple(parameters[0]), tuple(parameters[1])
        self.function = LogDensities(lines[0], lines[1], names)
        self.tensors = [x for each in parameters for x in each.values()]
        like = self.tensors[0].detach()
        self.value, self.error = torch.full_like(like, math.nan), torch.full_like(like, math.inf)
        self.settled = torch.zeros_like(like, dtype=torch.bool)
        self.nodes = 0
        self._blocks: list[_Block] = []
        with torch.no_grad():
            (p, q), (a, b) = families, parameters
            self.sides = CoveringNodes(p, q, a, b), CoveringNodes(q, p, b, a)
            self.on_second = self.sides[1].coarseness < self.sides[0].coarseness

    def solve(self) -> None:
        """Find values and errors."""
        for number in (0, 1):
            rows = torch.nonzero(self.on_second == bool(number))[:, 0]
            for count in _COUNTS:
                if count != _COUNTS[-1] and len(rows) > _MANY:
                    few = rows[:: len(rows) // _FEW]
                    self._attempt(number, few, count)
                    if self.settled[few].double().mean() < 0.5:
                        continue
                    rows = rows[~self.settled[rows]]
                for some in self._split(number, rows, count):
                    self._attempt(number, some, count)
                rows = rows[~self.settled[rows]]

    def _split(self, number: int, rows: Tensor, count: int) -> Sequence[Tensor]:
        """Rows that are summed together: what is computed stays in a core's cache."""
        if not rows.numel():
            return ()
        side = self.sides[number]
        # those of one block have the same nodes, whose window is the largest of theirs
        rows = rows[side.spacing[rows].argsort()]
        return rows.split(max(1, CACHED // (side.pieces * count)))

    def _attempt(self, number: int, rows: Tensor, count: int) -> None:
        side, width = self.sides[number], self.sides[number].width[rows]
        window = side.low[rows].amax(), side.high[rows].amax()
        z, weights = side.nodes(rows, window, count)
        parameters = [x.detach()[rows] for x in self.tensors]
        logs = self.function.recorded(number)(side.centre[rows] + width * z, *parameters)
        terms, waves = self.terms(*logs), patterns(count, side.pieces, z.dtype, z.device)
        sums = width * _weighted(waves, weights, terms)
        size = sums[0]
        masses = [width * _weighted(waves[:1], weights, torch.exp(x))[0] for x in logs]
        off = (masses[0] - 1).abs() + (masses[1] - 1).abs()
        # the first piece goes outwards
        ends = [0 if side.pieces == 1 else count - 1, len(z) - 1]
        reach = z[ends].abs()
        edge = 3 * reach * width * terms[ends]
        fallen = torch.full_like(size, _FASTEST)
        error = left_over(edge, 3 * reach / reach.sum(0), size, fallen)
        error = error + extrapolated(sums, self.trust) + (ROUNDING + _NOISE * off) * size
        error = _CAUTION * error
        self.value[rows], self.error[rows] = size, error
        settled = (off <= COVERED) & (error <= AIM * size)
        if bool(settled.any()):
            self.settled[rows] = settled
            self._blocks.append(_Block(number, rows[settled], window, count))
            self.nodes = max(self.nodes, len(z))

    # --- derivatives ----------------------------------------------------------------------------

    def _settled(self) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """The line, the rows of a block, and their nodes and weights, of all settled rows."""
        for number, rows, window, count in self._blocks:
            side, width = self.sides[number], self.sides[number].width[rows]
            z, weights = side.nodes(rows, window, count)
            yield number, rows, side.centre[rows] + width * z, width * weights

    def _sum(self, number: int, y: Tensor, weights: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        return (weights * self.terms(*self.function(number, y, *tensors))).sum(0)

    def slopes(self, tensors: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor]:
        """The derivatives by the tensors that they are wanted of; 0 in rows not settled."""
        found = [torch.zeros_like(x) for x, w in zip(tensors, wanted, strict=True) if w]
        for number, rows, y, weights in self._settled():
            some = [
                x.detach()[rows].requires_grad_(w) for x, w in zip(tensors, wanted, strict=True)
            ]
            with torch.enable_grad():
                total = self._sum(number, y, weights, some).sum()
            leaves = [x for x in some if x.requires_grad]
            of_rows = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
            for whole, part in zip(found, of_rows, strict=True):
                whole[rows] = part
        return found

    def differentiable(self, tensors: Sequence[Tensor]) -> Tensor:
        """The values of settled rows, with a graph."""
        value = torch.zeros_like(self.value)
        for number, rows, y, weights in self._settled():
            part = self._sum(number, y, weights, [x[rows] for x in tensors])
            value = value.index_put((rows,), part)
        return value


class _Total(torch.autograd.Function):
    """The sums of a rule as one node of autograd's graph, whose memory is that of a block."""

    @staticmethod
    def forward(ctx: Any, rule: _Rule, *tensors: Tensor) -> Tensor:
        ctx.rule = rule
        ctx.save_for_backward(*tensors, *rule.slopes(tensors, ctx.needs_input_grad[1:]))
        return rule.value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[1:]
        tensors, slopes = ctx.saved_tensors[: len(wanted)], ctx.saved_tensors[len(wanted) :]
        if torch.is_grad_enabled():  # a second derivative may be taken
            tensors = [x.view_as(x) for x in tensors]  # two of them may be one tensor
            leaves = [x for x, w in zip(tensors, wanted, strict=True) if w]
            found = torch.autograd.grad(
                ctx.rule.differentiable(tensors), leaves, grads[0], create_graph=True,
                allow_unused=True, materialize_grads=True,
            )  # fmt: skip
        else:
            found = tuple(grads[0] * x for x in slopes)
        remaining = iter(found)
        return (None, *(next(remaining) if w else None for w in wanted))


def _weighted(waves: Tensor, weights: Tensor, terms: Tensor) -> Tensor:
    """Sums over the nodes, (waves, rows)."""
    if weights.shape[1] == 1:
        return torch.mm(waves * weights.t(), terms)
    return torch.mm(waves, weights * terms)
