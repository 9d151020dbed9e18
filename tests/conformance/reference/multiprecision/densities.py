"""The densities and masses of `densities` on mpmath numbers, and masses on finitely many atoms.

Each is called as `density(mp, x, **parameters)` and returns the logarithm, as
`Family.log_density` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import mpmath
from mpmath import mp, mpf

from pyro_kl import Family

from ..densities import DENSITIES as CONTINUOUS
from ..densities import MASSES


@lru_cache(maxsize=4096)
def _loggamma(x: Any, prec: int) -> Any:
    return mpmath.loggamma(x)


@lru_cache(maxsize=4096)
def _log_i0(k: Any, prec: int) -> Any:
    return mp.log(mp.besseli(0, k)) - k


class _Numbers:
    """The functions of `densities` on one mpmath number; a constant is computed once."""

    number, pi, inf = mpf, mp.pi, mp.inf
    exp, log1p, expm1, sqrt, sin = map(staticmethod, (mp.exp, mp.log1p, mp.expm1, mp.sqrt, mp.sin))
    abs, real = staticmethod(abs), staticmethod(mp.re)
    #: No number of any size counts as nothing.
    negligible = -mp.inf

    def log(self, x: Any) -> Any:
        return mp.log(x) if x > 0 else -mp.inf

    def where(self, condition: bool, x: Any, y: Any) -> Any:
        return x if condition else y

    def loggamma(self, x: Any) -> Any:
        return _loggamma(mpf(x), mp.prec)

    def log_i0(self, k: Any) -> Any:
        return _log_i0(k, mp.prec)

    def log1mexp(self, x: Any) -> Any:
        return self.log(-mp.expm1(x))

    def log1pexp(self, x: Any) -> Any:
        return mp.log1p(mp.exp(x))

    def logaddexp(self, x: Any, y: Any) -> Any:
        top = max(x, y)
        return top if mp.isinf(top) else top + mp.log1p(mp.exp(min(x, y) - top))

    def scaled_erfc(self, x: Any) -> Any:
        """exp(x^2) erfc(x), where mpmath's own overflows by the series."""
        if x < 1e5:
            return mp.exp(x * x) * mp.erfc(x)
        w = 1 / (2 * x * x)
        return (1 - w * (1 - 3 * w * (1 - 5 * w))) / (x * mp.sqrt(mp.pi))

    def end(self, x: Any) -> Any:
        """An end of a support, as float64 has it."""
        return mpf(float(x))


NUMBERS = _Numbers()


@dataclass(frozen=True)
class _Place:
    """A point, whose distances from the ends keep their digits by themselves."""

    x: Any
    high: Any = mp.inf

    def minus(self, place: Any) -> Any:
        return self.x - place

    over = minus

    def under(self, end: Any) -> Any:
        return end - self.x

    def log_over(self, end: Any) -> Any:
        return NUMBERS.log(self.x - end)

    def log_under(self, end: Any) -> Any:
        return NUMBERS.log(end - self.x)

    def log1p_square(self, loc: Any, scale: Any) -> Any:
        return mp.log1p(((self.x - loc) / scale) ** 2)


def _at_place(density: Callable[..., Any]) -> Callable[..., Any]:
    return lambda _, x, **parameters: density(NUMBERS, _Place(x), **parameters)


def _at_atom(mass: Callable[..., Any]) -> Callable[..., Any]:
    return lambda _, k, **parameters: mass(NUMBERS, mpf(k), **parameters)


# --- finitely many atoms ------------------------------------------------------------------------


def _bernoulli(mp: Any, k: int, probs: Any = None, logits: Any = None) -> Any:
    p1 = probs if logits is None else 1 / (1 + mp.exp(-logits))
    mass = {0: 1 - p1, 1: p1}.get(k, 0)
    return mp.log(mass) if mass else -mp.inf


def _beta_binomial(
    mp: Any, k: int, concentration1: Any, concentration0: Any, total_count: Any = 1
) -> Any:
    if k > total_count:
        return -mp.inf
    a, b, n = concentration1, concentration0, total_count

    def log_beta(x: Any, y: Any) -> Any:
        return mp.loggamma(x) + mp.loggamma(y) - mp.loggamma(x + y)

    return mp.log(mp.binomial(n, k)) + log_beta(k + a, n - k + b) - log_beta(a, b)


def _binomial(mp: Any, k: int, total_count: Any, probs: Any = None, logits: Any = None) -> Any:
    if k > total_count:
        return -mp.inf
    p1 = probs if logits is None else 1 / (1 + mp.exp(-logits))
    mass = mp.binomial(total_count, k) * p1**k * (1 - p1) ** (total_count - k)
    return mp.log(mass) if mass else -mp.inf


def _categorical(mp: Any, k: int, probs: Any = None, logits: Any = None) -> Any:
    weights = list(probs) if logits is None else [mp.exp(x) for x in logits]
    mass = weights[k] / sum(weights) if k < len(weights) else 0
    return mp.log(mass) if mass else -mp.inf


def _ordered_logistic(mp: Any, k: int, predictor: Any, cutpoints: Any) -> Any:
    if k > len(cutpoints):
        return -mp.inf
    below = [1 / (1 + mp.exp(predictor - c)) for c in cutpoints]
    return mp.log([*below, 1][k] - [0, *below][k])


#: By the name of the family.
DENSITIES: Mapping[str, Callable[..., Any]] = {
    "Bernoulli": _bernoulli,
    "BetaBinomial": _beta_binomial,
    "Binomial": _binomial,
    "Categorical": _categorical,
    "OrderedLogistic": _ordered_logistic,
    **{name: _at_place(density) for name, density in CONTINUOUS.items()},
    **{name: _at_atom(mass) for name, mass in MASSES.items()},
}


def log_density_of(family: Family) -> Callable[..., Any]:
    """The book's density of a family, or the one that a family of a test brings itself."""
    return family.log_density or DENSITIES[family.name]
