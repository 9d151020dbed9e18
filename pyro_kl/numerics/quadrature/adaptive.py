"""Nodes doubled until every row of a batch is as exact as it was asked, as one node of a graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..dtypes import summed_to
from .integrand import Recorded
from .rule import Rows, sums_over
from .sweep import ROUNDING, look

#: Places where the nodes must crowd, or what computes them if they must.
Cuts = Sequence[Tensor] | Callable[[], Sequence[Tensor]]

#: Nodes of a piece: the first attempt, and the last one without and with cuts.
FIRST, LAST_WHOLE, LAST_SPLIT = 73, 577, 1153
#: The first attempt at many rows of a density that falls faster than an exponential.
COARSE = 49
#: Elements of one block of nodes times rows: bounds the memory of a large batch.
BLOCK = 1 << 17
#: The same where the integrand is recorded: what a core's cache holds a dozen of.
CACHED = 1 << 15
#: A slope has fewer digits than its value, whose error alone decides when to stop; and still
#: fewer where q changes within a part of p's width, over which it divides.
_WITH_SLOPES, _WITH_STEEP_SLOPES = 1e-7, 1e-9


def given(cuts: Cuts) -> Sequence[Tensor]:
    return cuts() if callable(cuts) else cuts


class Solution:
    """Doubles the nodes, block by block of rows, until every row is as exact as it was asked."""

    def __init__(self, rows: Rows, tolerance: float, shape: torch.Size, cuts: Cuts) -> None:
        self.rows, self.tolerance, self.shape, self._cuts = rows, tolerance, shape, cuts
        self.error = torch.empty(0)
        self.nodes = 0
        # of many rows that equal steps suit well, few need more than two thirds of the usual nodes
        coarse = rows.is_light and not rows.kinked and shape.numel() * FIRST > CACHED
        self.first = COARSE if coarse else FIRST
        self.level = self.first, rows.kinked
        self.settled = False
        self.aim = self.narrow_aim = tolerance

    def place(self, cuts: Sequence[Tensor]) -> None:
        """Let the nodes crowd at these places."""
        self.rows = replace(
            self.rows, cuts=tuple(c.detach().expand(self.shape).reshape(-1) for c in cuts)
        )

    def _aim_of(self, rows: Rows) -> Tensor | float:
        """The relative error that rows aim at."""
        if rows.narrow is None or self.aim == self.narrow_aim:
            return self.aim
        return torch.where(rows.narrow > 0, self.narrow_aim, self.aim)

    def _wanted(self, value: Tensor) -> Tensor:
        """The absolute error that is small enough; no digits can be asked of rounding."""
        return value.abs() * self._aim_of(self.rows) + 2 * ROUNDING

    def solve(self, parameters: Sequence[Tensor], asked: Sequence[bool]) -> list[Tensor]:
        """The value, and the derivatives by the parameters that ask for them."""
        if True in asked:
            self.aim = min(self.tolerance, _WITH_SLOPES)
            self.narrow_aim = min(self.tolerance, _WITH_STEEP_SLOPES)
        flat = [x.detach() for x in parameters]
        if len(self.shape) != 1 or any([x.shape != self.shape for x in flat]):
            flat = [x.expand(self.shape).reshape(-1) for x in flat]
        best: list[Tensor] = []
        rows: Tensor | None = None
        for count, split in self._levels():
            if split and not self.rows.kinked and not self.rows.cuts:
                self.place(given(self._cuts))
                if not self.rows.cuts:
                    break
            pieces = 2 + len(self.rows.cuts) if split else 1
            self.settled, found = self._look_at(rows, flat, asked, count, pieces, split)
            self.nodes, self.level = count * pieces, (count, split)
            best = found if rows is None else self._improved(best, found, rows)
            if self.settled:
                break
            best[1].nan_to_num_(nan=math.inf)
            short = best[1] > self._wanted(best[0])
            if not short.any():
                self.settled = True
                break
            rows = torch.nonzero(short)[:, 0]
        self.error = best[1].reshape(self.shape)
        return [best[0].reshape(self.shape), *(x.reshape(self.shape) for x in best[2:])]

    def _improved(self, best: list[Tensor], found: list[Tensor], rows: Tensor) -> list[Tensor]:
        best = [x.reshape(-1) for x in best]
        value, error = best[0][rows], best[1][rows]
        # a rule that the next one contradicts was not fine enough to tell its own error
        better = (found[1] <= error) | ~((found[0] - value).abs() <= error + found[1])
        for old, new in zip(best, found, strict=True):
            old[rows] = torch.where(better, new.reshape(-1), old[rows])
        return best

    def _levels(self) -> Iterator[tuple[int, bool]]:
        for split in (False, True):
            count = self.first if self.rows.kinked or not split else 2 * FIRST - 1
            while count <= (LAST_SPLIT if split else LAST_WHOLE) and split >= self.rows.kinked:
                yield count, split
                count = 2 * count - 1

    def _look_at(
        self,
        rows: Tensor | None,
        parameters: Sequence[Tensor],
        asked: Sequence[bool],
        count: int,
        pieces: int,
        split: bool,
    ) -> tuple[bool, list[Tensor]]:
        """Value, error and derivatives of some rows, or of all; whether they are settled."""
        sweep = None
        if isinstance(self.rows.integrand, Recorded):
            sweep = self.rows.integrand.sweep(tuple(asked))
        size = parameters[0].shape[0] if rows is None else rows.shape[0]
        step = max(1, (BLOCK if sweep is None else CACHED) // (count * pieces))
        whole: list[Tensor] = []
        settled = sweep is not None
        for start in range(0, max(size, 1), step):  # no rows are looked at once, too
            if rows is None:
                block: Tensor | slice | None = slice(start, start + step) if size > step else None
            else:
                block = rows[start : start + step]
            some = parameters if block is None else [x[block] for x in parameters]
            its = self.rows if block is None else self.rows.take(block)
            if sweep is None:
                found = _by_autograd(its, some, asked, count, split=split)
            else:
                nodes = its.prepared(sweep, count, split=split)
                is_settled, found = look(
                    sweep, nodes, some, self._aim_of(its), its.kink(split=split), its.far
                )
                settled = settled and is_settled
                if not _is_finite(found):
                    _mend(found, its, some, asked, count, split=split)
            if size <= step:
                return settled, found
            whole = whole or [x.new_empty(size) for x in found]
            for all_rows, x in zip(whole, found, strict=True):
                all_rows[start : start + step] = x.reshape(-1)
        return settled, whole


def _is_finite(found: Sequence[Tensor]) -> bool:
    return math.isfinite(torch.cat([x.reshape(-1) for x in found]).sum())


def _mend(
    found: list[Tensor],
    rows: Rows,
    parameters: Sequence[Tensor],
    asked: Sequence[bool],
    count: int,
    *,
    split: bool,
) -> None:
    """Where nothing is left of p, a program has multiplied 0 by inf."""
    every = torch.stack([x.reshape(-1) for x in found])
    broken = torch.nonzero(~every.isfinite().all(0))[:, 0]
    some = [x[broken] for x in parameters]
    mended = _by_autograd(rows.take(broken), some, asked, count, split=split)
    for i, new in enumerate(mended):
        found[i] = found[i].reshape(-1).index_put((broken,), new)


def _by_autograd(
    rows: Rows, parameters: Sequence[Tensor], asked: Sequence[bool], count: int, *, split: bool
) -> list[Tensor]:
    """The same of an integrand that cannot be recorded."""
    some = [x.detach().requires_grad_(a) for x, a in zip(parameters, asked, strict=True)]
    with torch.set_grad_enabled(any(asked)):
        sums = sums_over(rows, some, count, split=split)
        total = sums.value.sum()
    leaves = [x for x in some if x.requires_grad]
    slopes: Sequence[Tensor] = ()
    if leaves:
        slopes = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    return [sums.value.detach(), sums.error(), *slopes]


class Adaptive(torch.autograd.Function):
    """The adaptive rule as one node of autograd's graph, whose memory is a block's.

    Its inputs are the cuts, the `moving` parameters that place nodes, and the others. An integral
    does not depend on where its nodes are, so the slope by the first two is zero. The slope by the
    others jumps at a kink: its own derivative does depend on where the pieces end, which is why
    the cuts are inputs.
    """

    @staticmethod
    def forward(
        ctx: Any, solution: Solution, cuts: int, moving: int, *places_and_parameters: Tensor
    ) -> Tensor:
        given = places_and_parameters[cuts:]
        asked = list(ctx.needs_input_grad[3 + cuts :])
        asked[:moving] = [False] * moving
        if cuts:
            solution.place(places_and_parameters[:cuts])
        value, *partials = solution.solve(given, asked)
        ctx.solution, ctx.asked, ctx.cuts = solution, asked, cuts
        ctx.save_for_backward(*places_and_parameters, *partials)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved, grad = ctx.saved_tensors, grads[0]
        inputs = saved[: ctx.cuts + len(ctx.asked)]
        if torch.is_grad_enabled():  # somebody may want a second derivative
            found = iter(_differentiable_slopes(ctx, inputs, grad))
        else:
            slopes = iter(saved[len(inputs) :])
            found = iter(
                [
                    summed_to(grad * next(slopes), x)
                    for x, a in zip(inputs[ctx.cuts :], ctx.asked, strict=True)
                    if a
                ]
            )
        nothing = (None,) * (3 + ctx.cuts)
        return (*nothing, *(next(found) if a else None for a in ctx.asked))


def _differentiable_slopes(ctx: Any, inputs: Sequence[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    """The slopes again, with a graph that knows how the ends of the pieces move."""
    # two parameters may be one tensor, whose two derivatives are to be told apart
    solution, inputs = ctx.solution, [x.view_as(x) for x in inputs]
    flat = [x.expand(solution.shape).reshape(-1) for x in inputs]
    rows = solution.rows
    if ctx.cuts:
        rows = replace(rows, cuts=tuple(flat[: ctx.cuts]))
    count, split = solution.level
    value = sums_over(rows, flat[ctx.cuts :], count, split=split).value.reshape(solution.shape)
    wanted = [x for x, a in zip(inputs[ctx.cuts :], ctx.asked, strict=True) if a]
    return torch.autograd.grad(
        value, wanted, grad, create_graph=True, allow_unused=True, materialize_grads=True
    )
