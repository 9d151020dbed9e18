"""KL of two coalescents at 16 digits: the expected log intensity ratio, integrated over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mpmath
from mpmath import mp, mpf

from .integrate import exact

DIGITS = 20


def kl(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    """From the constructors' arguments; +inf where q lacks lineages that p needs."""
    with mp.workdps(DIGITS):
        leaves = [sorted(exact(list(side["leaf_times"])), reverse=True) for side in (a, b)]
        if any(mine > other for mine, other in zip(leaves[0][1:], leaves[1][1:], strict=True)):
            return mp.inf
        ends = {x for side in leaves for x in side} | {
            mpf(i) for side in (a, b) for i in range(1, len(side.get("rate_grid", [0])))
        }
        times = sorted(ends, reverse=True)
        distribution = mpmath.zeros(1, len(leaves[0]) + 1)
        distribution[0, 0] = mpf(1)
        total = mpf(0)
        for start, end in zip(times, [*times[1:], -mp.inf], strict=True):
            for _ in range(leaves[0].count(start)):
                distribution = mpmath.matrix([[mpf(0), *list(distribution)[:-1]]])
            counts = [sum(x >= start for x in side) for side in leaves]
            part, distribution = _interval(distribution, start, end, a, b, counts[1] - counts[0])
            total += part
        return total


def _interval(
    distribution: Any, start: Any, end: Any, a: Any, b: Any, ahead: int
) -> tuple[Any, Any]:
    inside = start - 1 if end == -mp.inf else (start + end) / 2
    size = distribution.cols
    own = [_rate(a, inside) * _pairs(k) for k in range(size)]
    other = [_rate(b, inside) * _pairs(k + ahead) for k in range(size)]
    generator = mpmath.zeros(size)
    for k in range(1, size):
        generator[k, k], generator[k, k - 1] = -own[k], own[k]

    def integrand(elapsed: Any) -> Any:
        now = distribution * mpmath.expm(generator * elapsed)
        return sum(
            now[0, k] * (own[k] * mp.log(own[k] / other[k]) - own[k] + other[k])
            if own[k]
            else now[0, k] * other[k]
            for k in range(size)
        )

    if end == -mp.inf:
        # beyond this the slowest state, of two lineages, is left with probability 1e-25
        length = 58 / own[2]
        return mp.quad(integrand, mpmath.linspace(0, length, 7)), distribution
    length = start - end
    return mp.quad(integrand, [0, length]), distribution * mpmath.expm(generator * length)


def _rate(side: Mapping[str, Any], time: Any) -> Any:
    if "rate" in side:
        return exact(side["rate"])
    grid = exact(list(side["rate_grid"]))
    return grid[min(max(int(mp.floor(time)), 0), len(grid) - 1)]


def _pairs(count: int) -> Any:
    return mpf(count * (count - 1)) / 2 if count > 1 else mpf(0)
