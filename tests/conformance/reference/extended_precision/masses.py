"""Masses of counts as the books write them, in extended precision, and KLs as sums over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .adaptive_panels import ROUNDING
from .functions import LD, loggamma

#: Nats below 1 at which nothing is left of a mass: 1e-32.
NOTHING = 74.0
#: Atoms that are added up at the most.
MOST = 1 << 18

Member = Mapping[str, Any]


def _poisson(k: Any, rate: Any) -> Any:
    safe = np.where(rate > 0, rate, LD(1))
    atom = np.where(k == 0, LD(0), LD("-inf"))
    return np.where(rate > 0, k * np.log(safe) - rate - loggamma(k + 1), atom)


def _negative_binomial(k: Any, total_count: Any, probs: Any = None, logits: Any = None) -> Any:
    if probs is None:
        log_p1, log_p0 = -np.log1p(np.exp(-logits)), -np.log1p(np.exp(logits))
    else:
        log_p1, log_p0 = np.log(probs), np.log1p(-probs)
    ways = loggamma(total_count + k) - loggamma(total_count) - loggamma(k + 1)
    return ways + np.where(k == 0, 0, k * log_p1) + total_count * log_p0


def _gamma_poisson(k: Any, concentration: Any, rate: Any) -> Any:
    return _negative_binomial(k, concentration, logits=-np.log(rate))


def _geometric(k: Any, probs: Any = None, logits: Any = None) -> Any:
    if probs is None:
        return -np.log1p(np.exp(-logits)) - k * np.log1p(np.exp(logits))
    rest = np.where(probs == 1, LD(0.5), 1 - probs)
    atom = np.where(k == 0, LD(0), LD("-inf"))
    return np.where(probs == 1, atom, np.log(probs) + k * np.log(rest))


def _inflated(log_mass: Callable[..., Any]) -> Callable[..., Any]:
    def of_gate(k: Any, gate: Any = None, gate_logits: Any = None, **distribution: Any) -> Any:
        if gate is None:
            log_closed, log_opened = (
                -np.log1p(np.exp(-gate_logits)),
                -np.log1p(np.exp(gate_logits)),
            )
        else:
            log_closed, log_opened = np.log(gate), np.log1p(-gate)
        counted = log_opened + log_mass(k, **distribution)
        return np.where(k == 0, np.logaddexp(log_closed, counted), counted)

    return of_gate


#: `log_mass(k, **parameters)`.
COUNTS: Mapping[str, Callable[..., Any]] = {
    "GammaPoisson": _gamma_poisson,
    "Geometric": _geometric,
    "NegativeBinomial": _negative_binomial,
    "Poisson": _poisson,
    "ZeroInflatedNegativeBinomial": _inflated(_negative_binomial),
    "ZeroInflatedPoisson": _inflated(_poisson),
}


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
