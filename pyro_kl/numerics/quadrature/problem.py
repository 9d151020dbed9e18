"""One integral for each row of a batch, and the nodes for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .integrand import ByAutograd, Evaluation, Integrand
from .nodes import split_nodes, whole_nodes
from .rule import Nodes, differentiable, prepare

#: Nodes of a first and of a second attempt.
FIRST, SECOND = 73, 145
#: For the usual tolerance, the windows of the first two attempts may end where p has 1e-10 and
#: 1e-12 of its mass left: at these parts of the usual distance. What is beyond is estimated.
_SHORTENED = {FIRST: 0.78, SECOND: 0.84}
#: From this relative error on a window may be shortened.
_USUAL = 1e-7
#: A tail that ends within so many widths falls like exp(-exp(z)).
_DOUBLE = 4.0
#: A distribution that ends within so many widths falls faster than an exponential.
LIGHT = 10.0


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

    def with_breakpoints(self, breakpoints: Sequence[Tensor], shape: torch.Size) -> Problem:
        """The same with breakpoints that broadcast to a batch shape."""
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

    def pieces(self, *, split: bool) -> int:
        """Into how many pieces the window is split."""
        return 2 + len(self.breakpoints) if split else 1

    def differentiable(
        self, parameters: Sequence[Tensor], count: int, *, split: bool
    ) -> tuple[Tensor, Tensor]:
        """Value and error, in operations that autograd and `torch.func` follow."""
        evaluation = ByAutograd(self.integrand, ())
        nodes = self.nodes(evaluation, count, split=split)
        return differentiable(self.integrand, nodes, parameters, self.narrow, self.distance)


def problem_of(
    integrand: Integrand,
    like: Tensor,
    shape: torch.Size,
    window: tuple[Tensor | float, Tensor | float],
    tolerance: float,
    **rest: Any,
) -> Problem:
    """The problem of a batch shape, in `like`'s precision."""
    key = None
    if not any([isinstance(end, Tensor) for end in window]):
        key = *window, like.dtype, like.device
    low, high = [
        end.detach().expand(shape).reshape(-1)
        if isinstance(end, Tensor) and end.dim()
        else torch.as_tensor(end, dtype=like.dtype, device=like.device)
        for end in window
    ]
    heavy = [isinstance(end, Tensor) or end > LIGHT for end in window]
    shortened = tolerance >= _USUAL
    return Problem(
        integrand, low, high, (heavy[0], heavy[1]), key=key, shortened=shortened, **rest
    )


def _shortened(end: Tensor, part: float) -> Tensor:
    return torch.where(end < _DOUBLE, end - 0.3, part * end)
