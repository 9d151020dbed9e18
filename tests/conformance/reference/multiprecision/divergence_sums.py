"""Renyi and Jensen-Shannon divergences and entropies of counts, as sums at 50 digits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from mpmath import mp, mpf

from pyro_kl import Family

from .integrate import WORKING_DIGITS, Member, Parameters

#: A sum ends where a geometric series from here on is so small.
_NOTHING = mpf(10) ** -45
#: Atoms from which on a term that does not fall never will.
_FAR = 20_000


class Counts(Member):
    """A member of a family of counts, whose masses are computed once."""

    def __init__(self, family: Family, example: Parameters) -> None:
        super().__init__(family, example)
        self.log_mass = cache(self.log_density)


def _sum(p: Counts, q: Counts, term: Callable[[Any, Any], Any]) -> Any:
    """The sum of a function of both log masses over the atoms, until nothing is left; or inf."""
    total, before, k = mpf(0), mpf(0), 0
    last = max(float(p.high), float(q.high))
    while k <= last:
        now = term(p.log_mass(k), q.log_mass(k))
        total += now
        if now == mp.inf:
            return mp.inf
        ratio = now / before if before else mpf(1)
        if k > 50 and (now == 0 or (ratio < 1 and now / (1 - ratio) < _NOTHING * total)):
            break
        if k > _FAR:
            if ratio < 1 - mpf(10) ** -6:
                raise ArithmeticError(f"a sum of too many terms: {p.parameters}, {q.parameters}")
            # what falls like a Poisson comes to an end, but further out
            return mp.nan if _falls_like_poisson(p) else mp.inf
        before = now
        k += 1
    return total


def _falls_like_poisson(p: Counts) -> bool:
    """Whether log p falls faster than any multiple of k."""
    if p.bounded:
        return True
    k = 1_000_000
    near, far = p.log_density(k), p.log_density(2 * k)
    return far == -mp.inf or far - 2 * near < -k / 2


def renyi(p: Counts, q: Counts, alpha: float) -> Any:
    """Renyi's divergence of order alpha."""
    with mp.workdps(WORKING_DIGITS):
        a = mpf(alpha)

        def power(log_p: Any, log_q: Any) -> Any:
            if log_p == -mp.inf:
                return mpf(0)
            if log_q == -mp.inf:
                return mp.inf if a > 1 else mpf(0)
            return mp.exp(a * log_p + (1 - a) * log_q)

        if a > 1 and _falls_like_poisson(q) and not _falls_like_poisson(p):
            return mp.inf  # from atoms on that no sum comes to, if a is next to 1
        total = _sum(p, q, power)
        if mp.isnan(total):
            return total
        if total in (0, mp.inf):
            return mp.inf
        return mp.log(total) / (a - 1)


def jensen_shannon(p: Counts, q: Counts) -> Any:
    """Jensen and Shannon's divergence."""
    with mp.workdps(WORKING_DIGITS):

        def term(log_p: Any, log_q: Any) -> Any:
            masses = [mp.exp(x) for x in (log_p, log_q)]
            mean = sum(masses) / 2
            return sum(x * mp.log(x / mean) / 2 for x in masses if x)

        return _sum(p, q, term)


def entropy(p: Counts) -> Any:
    """The entropy."""
    with mp.workdps(WORKING_DIGITS):
        return _sum(p, p, lambda log_p, _: -mp.exp(log_p) * log_p if mp.isfinite(log_p) else 0)
