"""An independent KL and its slopes, with errors of their own: 18 digits in milliseconds.

The distributions are those of `densities` and `masses`, as the books write them, in extended
precision; the integrals are those of `integral`, the slopes central differences by the same nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .densities import CONTINUOUS
from .functions import LD
from .integral import Integral, Member
from .maps import Map
from .masses import COUNTS, Summation

Given = Integral | Summation
#: Steps of the differences, in units of the parameter: the first whose error is small is taken.
STEPS = (2e-3, 2e-4, 2e-5)
GOOD, GOOD_SLOPE = 1e-8, 1e-9


@dataclass(frozen=True)
class Truth:
    """A KL in nats; `error` is by how much it may be off.

    Args:
        kl: nats.
        error: nats.
        nodes: how many the integral took.
        slopes: derivatives by ("p", name) and ("q", name), and their errors, if asked for.
    """

    kl: Any
    error: Any
    nodes: int
    slopes: Mapping[tuple[str, str], tuple[float, float]]

    @property
    def good(self) -> bool:
        """Whether it is a reference: to 1e-8, relative."""
        known = np.isfinite(self.error) and not np.isnan(self.kl)
        return bool(known and self.error <= GOOD * max(abs(self.kl), 1e-3))


def knows(*names: str) -> bool:
    """Whether these families are written out here, and are all continuous or all counts."""
    return set(names) <= set(CONTINUOUS) or set(names) <= set(COUNTS)


def truth(
    p: str, a: Member, q: str, b: Member, *, maps: Sequence[Map] = (), slopes: bool = False
) -> Truth:
    """KL(p || q) of two families by their names, parameters as numbers.

    With maps that of their image of p; the slopes by their numbers go by q's, as `0.loc`.
    """
    with np.errstate(all="ignore"):
        numbers = {f"{i}.{k}": x for i, one in enumerate(maps) for k, x in one.numbers.items()}
        distributions = [
            {name: LD(float(x)) for name, x in distribution.items()}
            for distribution in (a, {**b, **numbers})
        ]
        given = Summation(p, q) if p in COUNTS else Integral(p, q, maps)
        kl, error, nodes = given.solve(*distributions)
        found = {}
        if slopes and np.isfinite(kl):
            for i, side in enumerate("pq"):
                for name in distributions[i]:
                    found[side, name] = _slope(given, distributions, i, name)
    return Truth(kl, error, nodes, found)


def _slope(
    given: Given, distributions: list[dict[str, Any]], i: int, name: str
) -> tuple[float, float]:
    """By the step that leaves the smallest error."""
    best = (float("nan"), float("inf"))
    for step in STEPS:
        found = _difference(given, distributions, i, name, step)
        if found[1] < best[1]:
            best = found
        if best[1] <= GOOD_SLOPE * abs(best[0]):
            break
    return best


def _difference(
    given: Given, distributions: list[dict[str, Any]], i: int, name: str, step: float
) -> tuple[float, float]:
    """Sixth order, from fourth order at a step and at twice that; the error is its correction."""
    h = LD(step) * _unit(name, distributions[i])
    moved = [dict(distribution) for distribution in distributions]
    shifts = np.array([-4, -2, -1, 1, 2, 4], LD)
    moved[i][name] = (distributions[i][name] + h * shifts)[:, None]
    y = given.again(*moved)
    fine = (8 * (y[3] - y[2]) - (y[4] - y[1])) / (12 * h)
    coarse = (8 * (y[4] - y[1]) - (y[5] - y[0])) / (24 * h)
    correction = (fine - coarse) / 15
    return float(fine + correction), float(abs(correction))


def _unit(name: str, distribution: Member) -> Any:
    """How far a parameter has to move to make another distribution."""
    x = distribution[name]
    if name in ("probs", "gate"):
        return min(x, 1 - x)
    if name in ("low", "high"):
        return distribution["high"] - distribution["low"]
    if name == "loc":
        return min(distribution.get("scale", LD(1)), LD(1))
    return x if x > 0 and "logits" not in name else LD(1)
