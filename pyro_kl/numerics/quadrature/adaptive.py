"""The number of nodes is doubled until every row of a batch is as exact as requested."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..dtypes import summed_to
from .integrand import ByAutograd, Evaluation, evaluation_of
from .problem import FIRST, SECOND, Problem
from .rule import ROUNDING, evaluate

#: Places where the nodes must crowd, or a function that computes them if they must.
Breakpoints: TypeAlias = Sequence[Tensor] | Callable[[], Sequence[Tensor]]

#: Attempts: nodes of a piece, and whether there are pieces; each nearly doubles the one before.
_WHOLE = ((FIRST, False), (SECOND, False), (289, False), (577, False))
_SPLIT = ((FIRST, True), (SECOND, True), (289, True), (577, True), (1153, True))
#: Up to a fourth of so many elements an evaluation costs little more than its Python: an attempt
#: is skipped. A batch that has rows where q is narrow skips the first one up to the whole of it.
_SMALL = 1 << 14
#: Elements of one block of nodes times rows: bounds the memory of a large batch.
BLOCK = 1 << 16
#: The same for a recorded integrand: a dozen of such blocks stay in a core's cache.
CACHED = 1 << 15
#: A slope has fewer digits than its value, whose error alone decides when to stop; and still
#: fewer where q changes within a part of p's width, over which it divides.
_WITH_SLOPES, _WITH_STEEP_SLOPES = 1e-7, 1e-9


class Solver:
    """Doubles the nodes, block by block of rows, until every row is as exact as requested.

    Args:
        problem: one integral for each row.
        tolerance: the relative error that is requested.
        shape: the batch shape of the rows.
        breakpoints: where the nodes crowd if many of them do not suffice.

    Attributes:
        error: of the values, of batch shape.
        nodes: the largest number of nodes that a row took.
        level: the last attempt.
        settled: whether every row is as exact as requested.
    """

    def __init__(
        self, problem: Problem, tolerance: float, shape: torch.Size, breakpoints: Breakpoints
    ) -> None:
        self.problem, self.tolerance, self.shape = problem, tolerance, shape
        self._breakpoints = breakpoints
        self._wanted: tuple[bool, ...] = ()
        self.error = torch.empty(0)
        self.nodes, self.level, self.settled = 0, _WHOLE[0], False

    def place(self, breakpoints: Sequence[Tensor]) -> None:
        """Let the nodes crowd at these places."""
        places = [x.detach() for x in breakpoints]
        self.problem = self.problem.with_breakpoints(places, self.shape)

    def solve(self, parameters: Sequence[Tensor], wanted: tuple[bool, ...]) -> list[Tensor]:
        """The value, and the derivatives by the parameters of which they are wanted; no graph."""
        flat = parameters
        if len(self.shape) != 1 or any([x.shape != self.shape for x in flat]):
            flat = [x.expand(self.shape).reshape(-1) for x in flat]
        self._wanted = wanted
        evaluation = evaluation_of(self.problem.integrand, wanted, self.problem.is_density)
        aim = self._aim_with_slopes() if True in wanted else self.tolerance
        attempts, rows = self._attempts(aim)
        best: list[Tensor] = []
        if rows is not None:
            best = [torch.zeros_like(flat[0]) for _ in range(2 + sum(wanted))]
            best[1].fill_(math.inf)
        while attempts:
            count, split = attempts.pop(0)
            if split and not self.problem.breakpoints and not self.problem.has_breakpoints:
                given = self._breakpoints
                self.place(given() if callable(given) else given)
                if not self.problem.breakpoints:
                    break
            self.level, self.nodes = (count, split), count * self.problem.pieces(split=split)
            certain, found = self._evaluated(evaluation, rows, flat, aim)
            best = found if rows is None else _improved(best, found, rows)
            if not certain or rows is not None:
                best[1].nan_to_num_(nan=math.inf)
                # no more digits can be requested than rounding leaves of terms of order 1
                rows = torch.nonzero(best[1] > best[0].abs() * aim + 2 * ROUNDING)[:, 0]
            if rows is None or not rows.numel():
                self.settled = True
                break
            # for a few rows, four times the nodes cost hardly more than twice as many
            next_but_one = 4 * count - 3, split
            if 4 * self.nodes * rows.numel() <= _SMALL // 4 and next_but_one in attempts:
                del attempts[0]
        self.error = best[1].reshape(self.shape)
        return [best[0].reshape(self.shape), *[x.reshape(self.shape) for x in best[2:]]]

    def _attempts(self, aim: Tensor | float) -> tuple[list[tuple[int, bool]], Tensor | None]:
        """The attempts, and the rows of the first one; None: all."""
        if self.problem.has_breakpoints:
            return [*_SPLIT], None
        attempts, rows = [*_WHOLE, *_SPLIT[1:]], None
        if isinstance(aim, Tensor):
            # the first attempt is never exact enough for the slopes where q is narrow
            rows = torch.nonzero(aim > _WITH_STEEP_SLOPES)[:, 0]
        few = _SMALL // 4 if rows is None else _SMALL
        if self.shape.numel() * SECOND <= few or (rows is not None and not rows.numel()):
            return attempts[1:], None
        return attempts, rows

    def _aim_with_slopes(self) -> Tensor | float:
        """The relative error that the rows aim at if derivatives are wanted, too."""
        usual = min(self.tolerance, _WITH_SLOPES)
        narrow = self.problem.narrow
        if narrow is None or usual <= _WITH_STEEP_SLOPES:
            return usual
        return torch.where(narrow > 0, _WITH_STEEP_SLOPES, usual).to(narrow)

    def _evaluated(
        self,
        evaluation: Evaluation,
        rows: Tensor | None,
        parameters: Sequence[Tensor],
        aim: Tensor | float,
    ) -> tuple[bool, list[Tensor]]:
        """Whether rows, or all, are certainly settled; their values, errors and derivatives."""
        size = parameters[0].shape[0] if rows is None else rows.shape[0]
        block = BLOCK if isinstance(evaluation, ByAutograd) else CACHED
        step = max(1, block // self.nodes)
        if rows is None and size <= step:
            return self._of_block(evaluation, self.problem, parameters, aim)
        certain, whole = True, list[Tensor]()
        for start in range(0, max(size, 1), step):  # a batch may have no rows
            part = slice(start, start + step)
            some: Tensor | slice = part if rows is None else rows[part]
            settled, found = self._of_block(
                evaluation,
                self.problem.take(some),
                [x[some] for x in parameters],
                aim[some] if isinstance(aim, Tensor) else aim,
            )
            certain = certain and settled
            whole = whole or [x.new_empty(size) for x in found]
            for all_rows, x in zip(whole, found, strict=True):
                all_rows[part] = x.reshape(-1)
        return certain, whole

    def _of_block(
        self,
        evaluation: Evaluation,
        problem: Problem,
        parameters: Sequence[Tensor],
        aim: Tensor | float,
    ) -> tuple[bool, list[Tensor]]:
        count, split = self.level
        nodes = problem.kept_nodes(evaluation, count, split=split)
        settled, found = evaluate(
            evaluation, nodes, parameters, aim, problem.narrow, problem.distance
        )
        if isinstance(evaluation, ByAutograd):
            return settled, found
        flat = torch.cat([x.reshape(-1) for x in found])
        if math.isfinite(flat.sum()):
            return settled, found
        # where nothing is left of p, a program has multiplied 0 by inf
        broken = torch.nonzero(~flat.reshape(len(found), -1).isfinite().all(0))[:, 0]
        by_autograd = ByAutograd(problem.integrand, self._wanted, problem.is_density)
        some = [x[broken] for x in parameters]
        mended = self._of_block(by_autograd, problem.take(broken), some, 0.0)[1]
        rows = (x.reshape(-1) for x in found)
        return False, [x.index_put((broken,), y) for x, y in zip(rows, mended, strict=True)]


def _improved(best: list[Tensor], found: list[Tensor], rows: Tensor) -> list[Tensor]:
    """The better of two attempts, of each of some rows."""
    best = [x.reshape(-1) for x in best]
    value, error = best[0][rows], best[1][rows]
    # an error estimate that the next attempt contradicts came from too few nodes
    better = (found[1] <= error) | ~((found[0] - value).abs() <= error + found[1])
    for old, new in zip(best, found, strict=True):
        old[rows] = torch.where(better, new.reshape(-1), old[rows])
    return best


class Adaptive(torch.autograd.Function):
    """The adaptive rule as one node of autograd's graph, whose memory is a block's.

    Its inputs are the breakpoints, the parameters that only place nodes, and the others. An
    integral does not depend on where its nodes are, so the slope by the first two is zero. The
    slope by the others jumps at a kink: its own derivative does depend on where the pieces end,
    which is why the breakpoints are inputs.
    """

    @staticmethod
    def forward(
        ctx: Any, solver: Solver, num_breakpoints: int, num_placing: int, *inputs: Tensor
    ) -> Tensor:
        breakpoints, parameters = inputs[:num_breakpoints], inputs[num_breakpoints:]
        wanted = ctx.needs_input_grad[3 + num_breakpoints + num_placing :]
        wanted = (*[False] * num_placing, *wanted)
        if breakpoints:
            solver.place(breakpoints)
        value, *slopes = solver.solve(parameters, wanted)
        ctx.solver, ctx.wanted, ctx.num_breakpoints = solver, wanted, num_breakpoints
        ctx.save_for_backward(*inputs, *slopes)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, saved, first = grads[0], ctx.saved_tensors, ctx.num_breakpoints
        inputs, slopes = saved[: first + len(ctx.wanted)], saved[first + len(ctx.wanted) :]
        found: list[Tensor | None] = [None] * (3 + first)
        if torch.is_grad_enabled():  # a second derivative may be taken
            slopes = iter(_differentiable_slopes(ctx, inputs, grad))
            return (*found, *(next(slopes) if w else None for w in ctx.wanted))
        remaining = iter(slopes)
        for x, wanted in zip(inputs[first:], ctx.wanted, strict=True):
            found.append(summed_to(grad * next(remaining), x) if wanted else None)
        return tuple(found)


def _differentiable_slopes(ctx: Any, inputs: Sequence[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    """The slopes again, with a graph that contains how the ends of the pieces move."""
    # two parameters may be one tensor: distinct aliases get distinct derivatives
    solver, inputs = ctx.solver, [x.view_as(x) for x in inputs]
    breakpoints, parameters = inputs[: ctx.num_breakpoints], inputs[ctx.num_breakpoints :]
    problem = (
        solver.problem.with_breakpoints(breakpoints, solver.shape)
        if breakpoints
        else solver.problem
    )
    flat = [x.expand(solver.shape).reshape(-1) for x in parameters]
    count, split = solver.level
    value, _ = problem.differentiable(flat, count, split=split)
    leaves = [x for x, wanted in zip(parameters, ctx.wanted, strict=True) if wanted]
    return torch.autograd.grad(
        value.reshape(solver.shape),
        leaves,
        grad,
        create_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
