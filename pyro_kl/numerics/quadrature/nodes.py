"""Nodes and weights on the line: one sinh-spaced set, or pieces that crowd at cuts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

#: exp(-exp(-t)) and 1 - tanh(pi/2 sinh(t)) are below 1e-17 beyond these.
_CUT_END, _INNER_END = -3.75, 3.2


def _steps(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 to 1 in equal steps, down a column; kept, unless torch records what is done."""
    recorded = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return (_new_steps if recorded else _kept_steps)(count, dtype, device)


def _new_steps(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.linspace(0, 1, count, dtype=dtype, device=device).unsqueeze(1)


_kept_steps = lru_cache(maxsize=256)(_new_steps)


def whole_nodes(
    low: Tensor, high: Tensor, count: int, heavy: tuple[bool, bool] = (True, True)
) -> tuple[Tensor, Tensor]:
    """Z from -low to high, t in equal steps; nodes and weights (1, count, rows or 1).

    Z = t + [exp(t) - 1]/2 - [exp(-t) - 1]/2, without the exponential on a side where the
    distribution falls faster than an exponential: equal steps are the best there.
    """
    start, end = (
        _where(reach, is_heavy) for reach, is_heavy in zip((low, high), heavy, strict=True)
    )
    step = (end + start) / (count - 1)
    t = (end + start) * _steps(count, low.dtype, low.device) - start
    z, weight = t, torch.ones_like(t)
    for side, is_heavy in zip((-1, 1), heavy, strict=True):
        if is_heavy:
            grown = 0.5 * torch.exp(side * t)
            z, weight = z + side * (grown - 0.5), weight + grown
    return z.unsqueeze(0), (weight * step).unsqueeze(0)


def _where(reach: Tensor, is_heavy: bool) -> Tensor:
    """The t of a reach, near enough: that of t + [exp(t) - 1] / 2."""
    if not is_heavy:
        return reach
    twice = 2 * reach
    return torch.log((twice + 1 - 2 * torch.log1p(twice)).maximum(1 + reach))


def split_nodes(
    low: Tensor, high: Tensor, cuts: Sequence[Tensor], count: int
) -> tuple[Tensor, Tensor]:
    """Pieces between -inf, 0, the cuts and inf; nodes and weights (pieces, count, rows or 1).

    A cut beyond the reach, where p has no mass, is moved to 0. Where a cut is at 0 or at another
    one, both are the first of them and move together: a piece between them would be on neither
    side of the cut, and its slopes on both.
    """
    zero = torch.zeros_like(cuts[0]) if cuts else torch.zeros_like(low).reshape(-1)
    for c in cuts:
        zero = torch.where(c == 0, c, zero)
    places = [zero]
    for c in cuts:
        c = torch.where((c > -low) & (c < high), c, zero)
        for other in places:
            c = torch.where(c == other, other, c)
        places.append(c)
    ends = torch.stack(places).sort(0).values
    pieces = [_outward(ends[0], low + ends[0], -1, count)]
    pieces += [_between(a, b, count) for a, b in pairwise(ends)]
    pieces += [_outward(ends[-1], high - ends[-1], 1, count)]
    return torch.stack([z for z, _ in pieces]), torch.stack([w for _, w in pieces])


def _outward(end: Tensor, far: Tensor, side: int, count: int) -> tuple[Tensor, Tensor]:
    """From a cut to `far` away from it, by steps exp(t - exp(-t))."""
    far = far.clamp(min=1.0)
    last = torch.log(far) + 1 / far
    step = (last - _CUT_END) / (count - 1)
    t = _CUT_END + (last - _CUT_END) * _steps(count, end.dtype, end.device)
    distance = torch.exp(t - torch.exp(-t))
    return end + side * distance, distance * (1 + torch.exp(-t)) * step


def _between(left: Tensor, right: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """From cut to cut, by tanh(pi/2 sinh(t))."""
    t = -_INNER_END + 2 * _INNER_END * _steps(count, left.dtype, left.device)
    u = 0.5 * math.pi * torch.sinh(t)
    slope = 0.5 * math.pi * torch.cosh(t) / torch.cosh(u) ** 2
    half, middle = 0.5 * (right - left), 0.5 * (right + left)
    step = 2 * _INNER_END / (count - 1)
    return middle + half * torch.tanh(u), half * slope * step
