"""The number of nodes is doubled until every row of a batch is as exact as requested."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..dtypes import summed_to
from .integrand import ByAutograd, Evaluation, Integrand, evaluation_of
from .nodes import split_nodes, whole_nodes
from .rule import ROUNDING, Nodes, differentiable, evaluate, prepare

#: Places where the nodes must crowd, or a function that computes them if they must.
Breakpoints: TypeAlias = Sequence[Tensor] | Callable[[], Sequence[Tensor]]

#: Nodes of a piece: the first attempt, and the last one without and with breakpoints.
FIRST, LAST_WHOLE, LAST_SPLIT = 73, 577, 1153
SECOND = 2 * FIRST - 1
#: Up to so many elements an evaluation costs hardly more than its Python: all rows of a batch with
#: rows where q is narrow start at the second attempt then, and with a fourth of it all batches do.
_SMALL = 1 << 14
#: Elements of one block of nodes times rows: bounds the memory of a large batch.
BLOCK = 1 << 16
#: The same for a recorded integrand: a dozen of such blocks stay in a core's cache.
CACHED = 1 << 15
#: A slope has fewer digits than its value, whose error alone decides when to stop; and still
#: fewer where q changes within a part of p's width, over which it divides.
_WITH_SLOPES, _WITH_STEEP_SLOPES = 1e-7, 1e-9
#: For the usual tolerance, the windows of the first two attempts may end where p has 1e-10 and
#: 1e-12 of its mass left: at these parts of the usual distance. What is beyond is estimated.
_SHORTENED = {FIRST: 0.78, SECOND: 0.84}
#: A tail that ends within so many widths falls like exp(-exp(z)).
_DOUBLE = 4.0
#: A distribution that ends within so many widths falls faster than an exponential.
LIGHT = 10.0
#: From this relative error on a window may be shortened.
_USUAL = 1e-7


@dataclass(frozen=True)
class Problem:
    """One integral for each row of a batch.

    Args:
        integrand: the function, of z and of parameters with one element per row.
        low: how far below 0 p has mass, of shape (rows,) or ().
        high: the same above 0.
        heavy: whether p falls no faster than an exponential, below and above.
        breakpoints: places for nodes to crowd at, (rows,) each.
        has_breakpoints: whether they crowd there from the first attempt on.
        is_density: whether p integrates to 1.
        narrow: (rows,), 1 where q changes as a kink would, else 0; None if it is 0 everywhere.
        distance: (rows,), how many of its widths p is away from 0; None if that costs no digits.
        key: by which nodes are kept that are the same for all rows; None if they are not.
        shortened: whether the nodes need not go as far as there are digits.
    """

    integrand: Integrand
    low: Tensor
    high: Tensor
    heavy: tuple[bool, bool]
    breakpoints: tuple[Tensor, ...] = ()
    has_breakpoints: bool = False
    is_density: bool = True
    narrow: Tensor | None = None
    distance: Tensor | None = None
    key: tuple[Any, ...] | None = None
    shortened: bool = False

    def take(self, rows: Tensor | slice) -> Problem:
        """The same for some rows."""
        low, high = (x[rows] if x.dim() else x for x in (self.low, self.high))
        narrow, distance = (None if x is None else x[rows] for x in (self.narrow, self.distance))
        breakpoints = tuple(x[rows] for x in self.breakpoints)
        return replace(
            self, low=low, high=high, breakpoints=breakpoints, narrow=narrow, distance=distance
        )

    def placed(self, breakpoints: Sequence[Tensor], shape: torch.Size) -> Problem:
        """The same with breakpoints of a batch shape."""
        return replace(self, breakpoints=tuple(x.expand(shape).reshape(-1) for x in breakpoints))

    def nodes(self, evaluation: Evaluation, count: int, *, split: bool) -> Nodes:
        """What the rule needs, so many nodes in each piece."""
        low, high = self.low, self.high
        if split:
            z, weights = split_nodes(low, high, self.breakpoints, count)
        else:
            if self.shortened and count in _SHORTENED:
                low, high = (_shortened(end, _SHORTENED[count]) for end in (low, high))
            z, weights = whole_nodes(low, high, count, self.heavy)
        return prepare(evaluation, z, weights, (self.low, self.high), is_density=self.is_density)

    def kept_nodes(self, evaluation: Evaluation, count: int, *, split: bool) -> Nodes:
        """The same without a graph; kept if they are the same for all rows."""
        kept = None if split or self.key is None else getattr(evaluation, "nodes", None)
        key = (count, self.shortened, self.key)
        found = None if kept is None else kept.get(key)
        if found is None:
            with torch.inference_mode(mode=False), torch.no_grad():
                found = self.nodes(evaluation, count, split=split)
            if kept is not None:
                kept[key] = found
        return found

    def narrow_part(self, *, split: bool) -> Tensor | None:
        """How much of a kink's error is assumed where q is narrow."""
        return None if self.narrow is None else self.narrow / (12.0 if split else 3.0)

    def differentiable(
        self, parameters: Sequence[Tensor], count: int, *, split: bool
    ) -> tuple[Tensor, Tensor]:
        """Value and error, in operations that autograd and `torch.func` follow."""
        evaluation = ByAutograd(self.integrand, ())
        nodes = self.nodes(evaluation, count, split=split)
        narrow = self.narrow_part(split=split)
        return differentiable(self.integrand, nodes, parameters, narrow, self.distance)


def problem_of(
    integrand: Integrand,
    like: Tensor,
    shape: torch.Size,
    window: tuple[Tensor | float, Tensor | float],
    tolerance: float,
    **rest: Any,
) -> Problem:
    """The problem of a batch shape, in `like`'s precision."""
    low, high = window
    key = None
    if not isinstance(low, Tensor) and not isinstance(high, Tensor):
        key = low, high, like.dtype, like.device
    return Problem(
        integrand,
        _end(low, like, shape),
        _end(high, like, shape),
        (isinstance(low, Tensor) or low > LIGHT, isinstance(high, Tensor) or high > LIGHT),
        key=key,
        shortened=tolerance >= _USUAL,
        **rest,
    )


def _end(end: Tensor | float, like: Tensor, shape: torch.Size) -> Tensor:
    if isinstance(end, Tensor) and end.dim():
        return end.detach().expand(shape).reshape(-1)
    return torch.as_tensor(end, dtype=like.dtype, device=like.device)


def _shortened(end: Tensor, part: float) -> Tensor:
    return torch.where(end < _DOUBLE, end - 0.3, part * end)


class Solver:
    """Doubles the nodes, block by block of rows, until every row is as exact as requested.

    Args:
        problem: one integral for each row.
        tolerance: the relative error that is requested.
        shape: the batch shape of the rows.
        breakpoints: what to crowd at if many nodes do not suffice.

    Attributes:
        error: of the values, of batch shape.
        nodes: the largest number of nodes that a row took.
        level: the nodes of a piece, and whether there are pieces, at last.
        settled: whether every row is as exact as requested.
    """

    def __init__(
        self, problem: Problem, tolerance: float, shape: torch.Size, breakpoints: Breakpoints
    ) -> None:
        self.problem, self.tolerance, self.shape = problem, tolerance, shape
        self._breakpoints = breakpoints
        self._wanted: tuple[bool, ...] = ()
        self.error = torch.empty(0)
        self.nodes = 0
        self.level = FIRST, problem.has_breakpoints
        self.settled = False

    def place(self, breakpoints: Sequence[Tensor]) -> None:
        """Let the nodes crowd at these places."""
        self.problem = self.problem.placed([x.detach() for x in breakpoints], self.shape)

    def solve(self, parameters: Sequence[Tensor], wanted: tuple[bool, ...]) -> list[Tensor]:
        """The value, and the derivatives by the parameters of which they are wanted."""
        flat = [x.detach() for x in parameters]
        if len(self.shape) != 1 or any([x.shape != self.shape for x in flat]):
            flat = [x.expand(self.shape).reshape(-1) for x in flat]
        self._wanted = wanted
        evaluation = evaluation_of(self.problem.integrand, wanted, self.problem.is_density)
        aim = self._aim(slopes=True in wanted)
        best: list[Tensor] = []
        rows: Tensor | None = None
        levels = self._levels()
        if not self.problem.has_breakpoints:
            narrow = isinstance(aim, Tensor)
            size = flat[0].shape[0]
            if size * SECOND <= (_SMALL if narrow else _SMALL // 4):
                next(levels)
            elif isinstance(aim, Tensor):
                # the first attempt is never exact enough for the slopes where q is narrow
                rows = torch.nonzero(aim > _WITH_STEEP_SLOPES)[:, 0]
                best = [torch.zeros_like(flat[0]) for _ in range(2 + sum(wanted))]
                best[1].fill_(math.inf)
        for count, split in levels:
            problem = self.problem
            if split and not problem.has_breakpoints and not problem.breakpoints:
                given = self._breakpoints
                self.place(given() if callable(given) else given)
                if not self.problem.breakpoints:
                    break
            self.level, self.nodes = (count, split), count * self._pieces(split=split)
            self.settled, found = self._evaluated(evaluation, rows, flat, aim)
            if rows is None:
                best = found
            else:
                best = _improved(best, found, rows)
                self.settled = False
            if self.settled:
                break
            best[1].nan_to_num_(nan=math.inf)
            # no more digits can be requested than rounding leaves of terms of the order of 1
            short = best[1] > best[0].abs() * aim + 2 * ROUNDING
            if not short.any():
                self.settled = True
                break
            rows = torch.nonzero(short)[:, 0]
        self.error = best[1].reshape(self.shape)
        return [best[0].reshape(self.shape), *(x.reshape(self.shape) for x in best[2:])]

    def _aim(self, *, slopes: bool) -> Tensor | float:
        """The relative error that the rows aim at."""
        if not slopes:
            return self.tolerance
        usual = min(self.tolerance, _WITH_SLOPES)
        if self.problem.narrow is None or self.tolerance <= _WITH_STEEP_SLOPES:
            return usual
        steep = min(self.tolerance, _WITH_STEEP_SLOPES)
        return torch.where(self.problem.narrow > 0, steep, usual).to(self.problem.narrow)

    def _pieces(self, *, split: bool) -> int:
        return 2 + len(self.problem.breakpoints) if split else 1

    def _levels(self) -> Iterator[tuple[int, bool]]:
        """Nodes of a piece, and whether there are pieces."""
        if not self.problem.has_breakpoints:
            count = FIRST
            while count <= LAST_WHOLE:
                yield count, False
                count = 2 * count - 1
        count = FIRST if self.problem.has_breakpoints else SECOND
        while count <= LAST_SPLIT:
            yield count, True
            count = 2 * count - 1

    def _evaluated(
        self,
        evaluation: Evaluation,
        rows: Tensor | None,
        parameters: Sequence[Tensor],
        aim: Tensor | float,
    ) -> tuple[bool, list[Tensor]]:
        """Whether rows, or all of them, are settled; their values, errors and derivatives."""
        count, split = self.level
        size = parameters[0].shape[0] if rows is None else rows.shape[0]
        block = BLOCK if isinstance(evaluation, ByAutograd) else CACHED
        step = max(1, block // (count * self._pieces(split=split)))
        if rows is None and size <= step:
            return self._of_block(evaluation, self.problem, parameters, aim)
        settled, whole = True, list[Tensor]()
        for start in range(0, max(size, 1), step):  # a batch may have no rows
            part = slice(start, start + step)
            some: Tensor | slice = part if rows is None else rows[part]
            its_aim = aim[some] if isinstance(aim, Tensor) else aim
            its_parameters = [x[some] for x in parameters]
            done, found = self._of_block(
                evaluation, self.problem.take(some), its_parameters, its_aim
            )
            settled = settled and done
            whole = whole or [x.new_empty(size) for x in found]
            for all_rows, x in zip(whole, found, strict=True):
                all_rows[part] = x.reshape(-1)
        return settled, whole

    def _of_block(
        self,
        evaluation: Evaluation,
        problem: Problem,
        parameters: Sequence[Tensor],
        aim: Tensor | float,
    ) -> tuple[bool, list[Tensor]]:
        count, split = self.level
        nodes = problem.kept_nodes(evaluation, count, split=split)
        narrow = problem.narrow_part(split=split)
        settled, found = evaluate(evaluation, nodes, parameters, aim, narrow, problem.distance)
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
    problem = solver.problem.placed(breakpoints, solver.shape) if breakpoints else solver.problem
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
