"""Nodes and weights on the line: one sinh-spaced set, or pieces that crowd at breakpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..concrete import is_traced

#: exp(-exp(-t)) and 1 - tanh(pi/2 sinh(t)) are below 1e-17 beyond these.
_OUTER_START, _INNER_END = -3.75, 3.2


def kept_unless_traced(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Keep the constants that a function makes, unless torch records what it does."""
    kept = lru_cache(maxsize=256)(function)

    @wraps(function)
    def constants(*arguments: Any) -> Tensor:
        return (function if is_traced() else kept)(*arguments)

    return constants


@kept_unless_traced
def _steps(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 to 1 in equal steps, down a column."""
    return torch.linspace(0, 1, count, dtype=dtype, device=device).unsqueeze(1)


def whole_nodes(
    low: Tensor, high: Tensor, count: int, heavy: tuple[bool, bool] = (True, True)
) -> tuple[Tensor, Tensor]:
    """From -low to high, t in equal steps; nodes and weights, (1, count, rows or 1).

    z = t + [exp(t) - 1]/2 - [exp(-t) - 1]/2, without the exponential on a side where the
    distribution falls faster than an exponential: equal steps are the best there.
    """
    start, end = (step_at(end, is_heavy) for end, is_heavy in zip((low, high), heavy, strict=True))
    step = (end + start) / (count - 1)
    t = (end + start) * _steps(count, low.dtype, low.device) - start
    z, weight = t, torch.ones_like(t)
    for side, is_heavy in zip((-1, 1), heavy, strict=True):
        if is_heavy:
            grown = 0.5 * torch.exp(side * t)
            z, weight = z + side * (grown - 0.5), weight + grown
    return z.unsqueeze(0), (weight * step).unsqueeze(0)


def step_at(end: Tensor, is_heavy: bool) -> Tensor:
    """The t at the end of a window: an approximate solution of t + [exp(t) - 1] / 2 = end."""
    if not is_heavy:
        return end
    twice = 2 * end
    return torch.log((twice + 1 - 2 * torch.log1p(twice)).maximum(1 + end))


def split_nodes(
    low: Tensor, high: Tensor, breakpoints: Sequence[Tensor], count: int
) -> tuple[Tensor, Tensor]:
    """Pieces between -inf, 0, the breakpoints and inf; nodes, weights (pieces, count, rows or 1).

    A breakpoint outside of the window, where p has no mass, is moved to 0. Breakpoints that are at
    0 or at the same place become one tensor and move together: a piece of no length between them
    would be on neither side of a kink, and its slopes on both.
    """
    zero = torch.zeros_like(breakpoints[0]) if breakpoints else torch.zeros_like(low).reshape(-1)
    for place in breakpoints:
        zero = torch.where(place == 0, place, zero)
    places = [zero]
    for place in breakpoints:
        place = torch.where((place > -low) & (place < high), place, zero)
        for other in places:
            place = torch.where(place == other, other, place)
        places.append(place)
    ends = torch.stack(places).sort(0).values
    pieces = [_outward(ends[0], low + ends[0], -1, count)]
    pieces += [_between(a, b, count) for a, b in pairwise(ends)]
    pieces += [_outward(ends[-1], high - ends[-1], 1, count)]
    return torch.stack([z for z, _ in pieces]), torch.stack([w for _, w in pieces])


def _outward(end: Tensor, far: Tensor, side: int, count: int) -> tuple[Tensor, Tensor]:
    """From a breakpoint to `far` away from it, by steps exp(t - exp(-t))."""
    far = far.clamp(min=1.0)
    last = torch.log(far) + 1 / far
    step = (last - _OUTER_START) / (count - 1)
    t = _OUTER_START + (last - _OUTER_START) * _steps(count, end.dtype, end.device)
    distance = torch.exp(t - torch.exp(-t))
    return end + side * distance, distance * (1 + torch.exp(-t)) * step


def _between(left: Tensor, right: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """From breakpoint to breakpoint, by tanh(pi/2 sinh(t))."""
    t = -_INNER_END + 2 * _INNER_END * _steps(count, left.dtype, left.device)
    u = 0.5 * math.pi * torch.sinh(t)
    slope = 0.5 * math.pi * torch.cosh(t) / torch.cosh(u) ** 2
    half, middle = 0.5 * (right - left), 0.5 * (right + left)
    step = 2 * _INNER_END / (count - 1)
    return middle + half * torch.tanh(u), half * slope * step
