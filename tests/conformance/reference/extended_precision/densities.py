"""The families with a density, over arrays of numbers in extended precision.

An independent source for `integral`: nothing here is imported from pyro_kl. A density is taken at
a `Place`, which has the distances from the ends of p's support, and at complex places where it has
no kink.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..densities import DENSITIES, log_odds
from .functions import ARRAYS, LD, PI


@dataclass(frozen=True)
class Place:
    """Points of p's support [low, high].

    Args:
        x: where they are; may have rounded to an end.
        low: the lower end, -inf if there is none.
        above: x - low, if that is finite.
        high: the upper end, inf if there is none.
        below: high - x, if that is finite.
        base: a place next to which x is known better, x = base + offset; None if there is none.
        offset: from there.
        log_above: log(x - low), where that under- or overflows.
        log_below: log(high - x).
        log_size: log|x| far out, where x overflows.
    """

    x: Any
    low: Any
    above: Any
    high: Any
    below: Any
    base: Any = None
    offset: Any = None
    log_above: Any = None
    log_below: Any = None
    log_size: Any = None

    def minus(self, place: Any) -> Any:
        """x - place, with the digits that x has next to its base."""
        return self.x - place if self.base is None else (self.base - place) + self.offset

    def over(self, end: Any) -> Any:
        """How far above a place at or below the lower end."""
        return self.minus(end) if np.isneginf(self.low).any() else (self.low - end) + self.above

    def under(self, end: Any) -> Any:
        """How far below a place at or above the upper end."""
        return -self.minus(end) if np.isposinf(self.high).any() else (end - self.high) + self.below

    def log_over(self, end: Any) -> Any:
        """The logarithm of `over`."""
        if self.log_above is not None and np.all(self.low == end):
            return self.log_above
        return self._unless_huge(np.log(self.over(end)))

    def log_under(self, end: Any) -> Any:
        """The logarithm of `under`."""
        if self.log_below is not None and np.all(self.high == end):
            return self.log_below
        return np.log(self.under(end))

    def log1p_square(self, loc: Any, scale: Any) -> Any:
        """log(1 + ((x - loc) / scale)^2), also where the square overflows."""
        z = self.minus(loc) / scale
        if self.log_size is None:
            return np.log1p(z**2)
        huge = np.abs(z) > LD("1e1000")
        return np.where(huge, 2 * (self.log_size - np.log(scale)), np.log1p(z**2))

    def _unless_huge(self, log_x: Any) -> Any:
        if self.log_size is None:
            return log_x
        return np.where(np.isposinf(log_x), self.log_size, log_x)


@dataclass(frozen=True)
class Continuous:
    """A family with a density.

    Args:
        log_density: at a place, parameters by keyword.
        centre: a place where there is mass.
        ends: of the support.
        kinks: where the density has a corner.
        log_cost: the logarithm of minus the log density far out, where that overflows.
        places: around its mass, at geometric distances; None for those around the centre.
        period: of a density on the circle, which goes on beyond the ends.
    """

    log_density: Callable[..., Any]
    centre: Callable[..., Any]
    ends: Callable[..., tuple[Any, Any]]
    kinks: Callable[..., tuple[Any, ...]] = lambda **_: ()
    log_cost: Callable[..., Any] | None = None
    places: Callable[..., tuple[Any, ...]] | None = None
    period: float = 0.0

    def around(self, **distribution: Any) -> tuple[Any, ...]:
        """Places around its mass: halving a panel would pass over a narrow distribution."""
        if self.places is not None:
            return self.places(**distribution)
        centre, width = self.centre(**distribution), distribution.get("scale", LD(1))
        steps = (s * LD(4) ** k for k in range(-1, 9) for s in (-1, 1))
        return (centre, *(centre + width * step for step in steps))

    def log_cost_at(self, at: Place, **distribution: Any) -> Any:
        """The logarithm of the size of the log density."""
        if self.log_cost is not None:
            return self.log_cost(at, **distribution)
        return np.log(np.abs(self.log_density(at, **distribution)))


def _line(**_: Any) -> tuple[Any, Any]:
    return LD("-inf"), LD("inf")


def _half_line(**_: Any) -> tuple[Any, Any]:
    return LD(0), LD("inf")


def _unit(**_: Any) -> tuple[Any, Any]:
    return LD(0), LD(1)


def _at_loc(loc: Any, **_: Any) -> Any:
    return loc


def _gumbel_cost(at: Place, loc: Any, scale: Any) -> Any:
    z = at.minus(loc) / scale
    return np.where(z < -100, -z, np.log(np.abs(z) + 1))


def _weibull_cost(at: Place, scale: Any, concentration: Any) -> Any:
    power = concentration * (at.log_over(0) - np.log(scale))
    return np.where(power > 100, power, np.log(1 + np.abs(power)))


def _circle(**_: Any) -> tuple[Any, Any]:
    return -PI, PI


def _on_circle(loc: Any, **_: Any) -> Any:
    return np.clip(loc - 2 * PI * np.round(loc / (2 * PI)), LD(-3), LD(3))


def _generalized_pareto_ends(loc: Any, scale: Any, concentration: Any) -> tuple[Any, Any]:
    xi = concentration
    return loc, np.where(xi < 0, loc - scale / np.where(xi < 0, xi, LD(-1)), LD("inf"))


def _middle_of_relaxed(temperature: Any, **flip: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(log_odds(ARRAYS, **flip) / temperature, -30, 30)))


_OF = {name: partial(density, ARRAYS) for name, density in DENSITIES.items()}

CONTINUOUS: dict[str, Continuous] = {
    "AffineBeta": Continuous(
        _OF["AffineBeta"],
        lambda concentration1, concentration0, loc, scale: (
            loc + scale * concentration1 / (concentration1 + concentration0)
        ),
        lambda loc, scale, **_: (loc, loc + scale),
    ),
    "AsymmetricLaplace": Continuous(
        _OF["AsymmetricLaplace"], _at_loc, _line, kinks=lambda loc, **_: (loc,)
    ),
    "Beta": Continuous(_OF["Beta"], lambda concentration1, concentration0: (
        concentration1 / (concentration1 + concentration0)
    ), _unit),
    "Cauchy": Continuous(_OF["Cauchy"], _at_loc, _line),
    "Chi2": Continuous(_OF["Chi2"], lambda df: df, _half_line),
    "ContinuousBernoulli": Continuous(_OF["ContinuousBernoulli"], lambda **_: LD(0.5), _unit),
    "Exponential": Continuous(_OF["Exponential"], lambda rate: 1 / rate, _half_line),
    "FisherSnedecor": Continuous(_OF["FisherSnedecor"], lambda **_: LD(1), _half_line),
    "Gamma": Continuous(
        _OF["Gamma"], lambda concentration, rate: concentration / rate, _half_line
    ),
    "GeneralizedPareto": Continuous(
        _OF["GeneralizedPareto"],
        lambda loc, scale, concentration: loc + scale / (1 - np.minimum(concentration, 0)),
        _generalized_pareto_ends,
    ),
    "Gumbel": Continuous(_OF["Gumbel"], _at_loc, _line, log_cost=_gumbel_cost),
    "HalfCauchy": Continuous(_OF["HalfCauchy"], lambda scale: scale, _half_line),
    "HalfNormal": Continuous(_OF["HalfNormal"], lambda scale: scale, _half_line),
    "InverseGamma": Continuous(
        _OF["InverseGamma"], lambda concentration, rate: rate / (concentration + 1), _half_line
    ),
    "Kumaraswamy": Continuous(_OF["Kumaraswamy"], lambda concentration1, concentration0: (
        (1 - LD(2) ** (-1 / concentration0)) ** (1 / concentration1)
    ), _unit),
    "Laplace": Continuous(_OF["Laplace"], _at_loc, _line, kinks=lambda loc, **_: (loc,)),
    "LogNormal": Continuous(_OF["LogNormal"], lambda loc, scale: np.exp(loc), _half_line),
    "Logistic": Continuous(_OF["Logistic"], _at_loc, _line),
    "Normal": Continuous(_OF["Normal"], _at_loc, _line),
    "Pareto": Continuous(
        _OF["Pareto"],
        lambda scale, alpha: scale * (1 + 1 / alpha),
        lambda scale, alpha: (scale, LD("inf")),
    ),
    "RelaxedBernoulli": Continuous(_OF["RelaxedBernoulli"], _middle_of_relaxed, _unit),
    "SkewLogistic": Continuous(_OF["SkewLogistic"], _at_loc, _line),
    "SoftAsymmetricLaplace": Continuous(_OF["SoftAsymmetricLaplace"], _at_loc, _line),
    "SoftLaplace": Continuous(_OF["SoftLaplace"], _at_loc, _line),
    "StudentT": Continuous(_OF["StudentT"], _at_loc, _line),
    "Uniform": Continuous(
        _OF["Uniform"], lambda low, high: (low + high) / 2, lambda low, high: (low, high)
    ),
    "VonMises": Continuous(_OF["VonMises"], _on_circle, _circle, period=2 * PI),
    "Weibull": Continuous(
        _OF["Weibull"], lambda scale, concentration: scale, _half_line, log_cost=_weibull_cost
    ),
}  # fmt: skip
