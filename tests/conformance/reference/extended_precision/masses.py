"""KLs of counts in extended precision, as sums over the atoms."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ..densities import MASSES
from .adaptive_panels import ROUNDING
from .functions import ARRAYS, LD

#: Nats below 1 at which nothing is left of a mass: 1e-32.
NOTHING = 74.0
#: Atoms that are added up at the most.
MOST = 1 << 18

Member = Mapping[str, Any]


#: `log_mass(k, **parameters)`.
COUNTS = {name: partial(mass, ARRAYS) for name, mass in MASSES.items()}


class Summation:
    """KL(p || q) of two families by their names, as a sum until nothing is left of p."""

    def __init__(self, p: str, q: str) -> None:
        self.log_p, self.log_q, self.k = COUNTS[p], COUNTS[q], np.zeros(0, LD)

    def solve(self, a: Member, b: Member) -> tuple[float, float, int]:
        """Nats, their error and the number of atoms."""
        self.k = np.arange(64, dtype=LD)
        mass, terms = self._terms(a, b)
        while len(self.k) < MOST and not self._is_all(mass):
            self.k = np.arange(4 * len(self.k), dtype=LD)
            mass, terms = self._terms(a, b)
        value, size = terms.sum(), np.abs(terms).sum()
        if np.isposinf(value):
            return float("inf"), 0.0, 0
        off = abs(mass.sum() - 1) * (1 + abs(value))
        beyond = 0 if self._is_all(mass) else len(self.k) * abs(terms[-1])
        return value, float(off + beyond + ROUNDING * (1 + size)), len(self.k)

    def _is_all(self, mass: Any) -> bool:
        """Whether the last atom has nothing left, and is not one before all others."""
        return bool(mass[-1] < np.exp(LD(-NOTHING)) and abs(mass.sum() - 1) < 1e-9)

    def again(self, a: Member, b: Member) -> Any:
        """By as many atoms as `solve`, for parameters next to those, varied along axis 0."""
        return self._terms(a, b)[1].sum(-1)

    def _terms(self, a: Member, b: Member) -> tuple[Any, Any]:
        log_p, log_q = self.log_p(self.k, **a), self.log_q(self.k, **b)
        mass = np.exp(log_p)
        return mass, np.where(mass > 0, mass * (log_p - log_q), 0)
