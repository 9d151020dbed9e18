"""Power series: evaluated by Horner's rule, and made as short as rounding allows."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

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
