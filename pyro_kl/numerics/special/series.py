"""Power series: evaluated by Horner's rule, and made as short as rounding allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

#: Of the first coefficient: what may be lost by leaving terms out.
_TOLERANCE = Fraction(2, 10**17)


def horner(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """The sum of coefficients[n] x^n."""
    if len(coefficients) == 1:
        return torch.full_like(x, coefficients[0])
    *others, last = coefficients
    total = x * last + others[-1]
    for c in reversed(others[:-1]):
        total = total * x + c
    return total


def economised(coefficients: Sequence[float | Fraction], radius: float) -> tuple[float, ...]:
    """A shorter polynomial for 0 <= x <= radius, as good as the given one to rounding.

    The highest power is replaced by the polynomial of lower degree that is nearest to it, which
    is off by 2^(1 - 2 n) of its largest value (Lanczos 1938): a third to a half of the terms of
    a Taylor series go.
    """
    c, r = [Fraction(x) for x in coefficients], Fraction(radius)
    lost = Fraction(0)
    while len(c) > 1:
        n = len(c) - 1
        size = c[n] * r**n / 2 ** (2 * n - 1)
        lost += abs(size)
        if lost > _TOLERANCE * abs(c[0]):
            break
        c = [x - size * t / r**k for k, (x, t) in enumerate(zip(c, _chebyshev(n), strict=True))]
        c.pop()
    return tuple(float(x) for x in c)


def _chebyshev(n: int) -> list[int]:
    """Coefficients of T_n(2 x - 1)."""
    before, now = [1], [-1, 2]
    for _ in range(n - 1):
        longer = [0, *(4 * x for x in now)]
        for k, x in enumerate(now):
            longer[k] -= 2 * x
        for k, x in enumerate(before):
            longer[k] -= x
        before, now = now, longer
    return now if n else before


# --- segments ---

_NODES, _WEIGHTS = (tuple(0.5 * x for x in xs) for xs in np.polynomial.legendre.leggauss(16))
_T = tuple(0.5 + float(x) for x in _NODES)
_W = tuple(float(w) for w in _WEIGHTS)
_FALLING = tuple(w * (1 - t) for w, t in zip(_W, _T, strict=True))


def _weighted(f: Callable[[Tensor], Tensor], x: Tensor, d: Tensor, w: tuple[float, ...]) -> Tensor:
    """sum_i w_i f(x + t_i d)."""
    nodes = torch.tensor(_T, dtype=x.dtype, device=x.device)
    weights = torch.tensor(w, dtype=x.dtype, device=x.device)
    return (f(x.unsqueeze(-1) + nodes * d.unsqueeze(-1)) * weights).sum(-1)


def mean_over_segment(f: Callable[[Tensor], Tensor], x: Tensor, d: Tensor) -> Tensor:
    """The mean of f over the segment from x to x + d."""
    return _weighted(f, x, d, _W)


def bregman_nearby(curvature: Callable[[Tensor], Tensor], x: Tensor, d: Tensor) -> Tensor:
    """f(x + d) - f(x) - d f'(x) = d^2 integral_0^1 (1 - t) f''(x + t d) dt, from f''."""
    return d * d * _weighted(curvature, x, d, _FALLING)


def slope_difference_nearby(curvature: Callable[[Tensor], Tensor], x: Tensor, d: Tensor) -> Tensor:
    """f'(x + d) - f'(x), from f''."""
    return d * _weighted(curvature, x, d, _W)
