"""Power series by Horner's rule, shorter polynomials of them, and means over a segment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeAlias

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

#: The error that a shorter polynomial may have, relative to the first coefficient.
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
    """A shorter polynomial for 0 <= x <= radius, as accurate as the given one up to rounding.

    Again and again the highest power is replaced by the nearest polynomial of lower degree, with
    an error of 2^(1 - 2 n) of the power's largest value: the Chebyshev series is truncated. Of a
    Taylor series a third to a half of the terms go.

    Reference: Lanczos (1938), Trigonometric interpolation of empirical and analytical functions.
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


# --- the Gauss-Legendre rule on a segment ---------------------------------------------------

#: Nodes on (0, 1) and weights.
Rule: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]


def gauss_legendre(count: int) -> Rule:
    """The Gauss-Legendre rule on (0, 1)."""
    nodes, weights = leggauss(count)
    return tuple(map(float, 0.5 + 0.5 * nodes)), tuple(map(float, 0.5 * weights))


def on_unit_interval(rule: Rule, like: Tensor) -> tuple[Tensor, Tensor]:
    """A rule's nodes and weights, in the dtype and on the device of a tensor."""
    nodes, weights = (torch.tensor(x, dtype=like.dtype, device=like.device) for x in rule)
    return nodes, weights


# For a function that is analytic in a neighbourhood of the segment, 16 nodes leave an error below
# rounding, and no term cancels another.
_RULE = gauss_legendre(16)
_FALLING = _RULE[0], tuple(w * (1 - t) for t, w in zip(*_RULE, strict=True))


def _weighted(f: Callable[[Tensor], Tensor], x: Tensor, d: Tensor, rule: Rule) -> Tensor:
    """sum_i w_i f(x + t_i d)."""
    nodes, weights = on_unit_interval(rule, x)
    return (f(x.unsqueeze(-1) + nodes * d.unsqueeze(-1)) * weights).sum(-1)


def mean_over_segment(f: Callable[[Tensor], Tensor], x: Tensor, d: Tensor) -> Tensor:
    """The mean of f over the segment from x to x + d."""
    return _weighted(f, x, d, _RULE)


def bregman_nearby(curvature: Callable[[Tensor], Tensor], x: Tensor, d: Tensor) -> Tensor:
    """f(x + d) - f(x) - d f'(x) = d^2 integral_0^1 (1 - t) f''(x + t d) dt, from f''."""
    return d * d * _weighted(curvature, x, d, _FALLING)


def slope_difference_nearby(curvature: Callable[[Tensor], Tensor], x: Tensor, d: Tensor) -> Tensor:
    """f'(x + d) - f'(x), from f''."""
    return d * _weighted(curvature, x, d, _RULE)
