"""Densities as the books write them, over arrays of numbers in extended precision.

An independent source for `integral`: nothing here is imported from pyro_kl. A density is taken at
a `Place`, which has the distances from the ends of p's support, and at complex places where it has
no kink.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .functions import LD, PI, log1mexp, log1pexp, log_i0, loggamma, scaled_erfc


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


def _log_beta(a: Any, b: Any) -> Any:
    return loggamma(a) + loggamma(b) - loggamma(a + b)


def _log_odds(probs: Any = None, logits: Any = None) -> Any:
    return logits if probs is None else np.log(probs) - np.log1p(-probs)


# --- the line -----------------------------------------------------------------------------------


def _asymmetric_laplace(at: Place, loc: Any, scale: Any, asymmetry: Any) -> Any:
    left, right, d = scale * asymmetry, scale / asymmetry, at.minus(loc)
    return np.where(d.real < 0, d / left, -d / right) - np.log(left + right)


def _cauchy(at: Place, loc: Any, scale: Any) -> Any:
    return -np.log(PI * scale) - at.log1p_square(loc, scale)


def _gumbel(at: Place, loc: Any, scale: Any) -> Any:
    z = at.minus(loc) / scale
    return -z - np.exp(-z) - np.log(scale)


def _gumbel_cost(at: Place, loc: Any, scale: Any) -> Any:
    z = at.minus(loc) / scale
    return np.where(z < -100, -z, np.log(np.abs(z) + 1))


def _laplace(at: Place, loc: Any, scale: Any) -> Any:
    return _asymmetric_laplace(at, loc, scale, LD(1))


def _logistic(at: Place, loc: Any, scale: Any) -> Any:
    return _skew_logistic(at, loc, scale, LD(1))


def _normal(at: Place, loc: Any, scale: Any) -> Any:
    return -((at.minus(loc) / scale) ** 2) / 2 - np.log(scale) - np.log(2 * PI) / 2


def _skew_logistic(at: Place, loc: Any, scale: Any, asymmetry: Any) -> Any:
    z = at.minus(loc) / scale
    size = np.where(z.real < 0, -z, z)
    log1p_exp = np.where(z.real < 0, -z, 0) + np.log1p(np.exp(-size))
    return np.log(asymmetry / scale) - z - (asymmetry + 1) * log1p_exp


def _soft_asymmetric_laplace(
    at: Place, loc: Any, scale: Any, asymmetry: Any, softness: Any
) -> Any:
    """The sum of an AsymmetricLaplace and a Normal: the convolution's two sides."""
    left, right, s, d = scale * asymmetry, scale / asymmetry, scale * softness, at.minus(loc)

    def log_side(distance: Any, length: Any) -> Any:
        # log of exp(s^2 / (2 l^2) - d / l) erfc(u) / 2
        u = (s / length - distance / s) / np.sqrt(LD(2))
        scaled = scaled_erfc(np.abs(u))
        # of the two exponents that make up d / l - s^2 / (2 l^2), u^2 takes all but this
        near = np.log(scaled) - (distance / s) ** 2 / 2
        far = s**2 / (2 * length**2) - distance / length
        erfc = 2 - scaled * np.exp(-u * u)
        return np.where(u > 0, near, far + np.log(erfc)) - np.log(LD(2))

    return np.logaddexp(log_side(d, right), log_side(-d, left)) - np.log(left + right)


def _soft_laplace(at: Place, loc: Any, scale: Any) -> Any:
    z = at.minus(loc) / scale
    z = np.where(z.real < 0, -z, z)
    return np.log(2 / (PI * scale)) - z - np.log1p(np.exp(-2 * z))


def _student_t(at: Place, df: Any, loc: Any, scale: Any) -> Any:
    norm = loggamma((df + 1) / 2) - loggamma(df / 2) - np.log(df * PI) / 2 - np.log(scale)
    return norm - (df + 1) / 2 * at.log1p_square(loc, scale * np.sqrt(df))


def _von_mises(at: Place, loc: Any, concentration: Any) -> Any:
    drop = 2 * np.sin((at.x - loc) / 2) ** 2
    return -concentration * drop - np.log(2 * PI) - log_i0(concentration)


def _circle(**_: Any) -> tuple[Any, Any]:
    return -PI, PI


def _on_circle(loc: Any, **_: Any) -> Any:
    return np.clip(loc - 2 * PI * np.round(loc / (2 * PI)), LD(-3), LD(3))


# --- half-lines ---------------------------------------------------------------------------------


def _gamma(at: Place, concentration: Any, rate: Any) -> Any:
    a, log_x = concentration, at.log_over(0)
    return a * np.log(rate) + (a - 1) * log_x - np.exp(log_x) * rate - loggamma(a)


def _chi2(at: Place, df: Any) -> Any:
    return _gamma(at, df / 2, LD(0.5))


def _exponential(at: Place, rate: Any) -> Any:
    return np.log(rate) - rate * at.over(0)


def _fisher_snedecor(at: Place, df1: Any, df2: Any) -> Any:
    a, b, log_x = df1 / 2, df2 / 2, at.log_over(0)
    log_z = np.log(df1 / df2) + log_x
    return a * log_z - log_x - (a + b) * log1pexp(log_z) - _log_beta(a, b)


def _half_cauchy(at: Place, scale: Any) -> Any:
    return np.log(2 / (PI * scale)) - log1pexp(2 * (at.log_over(0) - np.log(scale)))


def _half_normal(at: Place, scale: Any) -> Any:
    return np.log(2 / PI) / 2 - np.log(scale) - (at.over(0) / scale) ** 2 / 2


def _inverse_gamma(at: Place, concentration: Any, rate: Any) -> Any:
    a, log_x = concentration, at.log_over(0)
    return a * np.log(rate) - (a + 1) * log_x - rate * np.exp(-log_x) - loggamma(a)


def _log_normal(at: Place, loc: Any, scale: Any) -> Any:
    y = at.log_over(0)
    return -(((y - loc) / scale) ** 2) / 2 - y - np.log(scale) - np.log(2 * PI) / 2


def _pareto(at: Place, scale: Any, alpha: Any) -> Any:
    return np.log(alpha / scale) - (alpha + 1) * log1pexp(at.log_over(scale) - np.log(scale))


def _weibull(at: Place, scale: Any, concentration: Any) -> Any:
    log_z = at.log_over(0) - np.log(scale)
    k = concentration
    return np.log(k / scale) + (k - 1) * log_z - np.exp(k * log_z)


def _weibull_cost(at: Place, scale: Any, concentration: Any) -> Any:
    power = concentration * (at.log_over(0) - np.log(scale))
    return np.where(power > 100, power, np.log(1 + np.abs(power)))


# --- intervals ----------------------------------------------------------------------------------


def _beta(at: Place, concentration1: Any, concentration0: Any) -> Any:
    a, b = concentration1, concentration0
    return (a - 1) * at.log_over(0) + (b - 1) * at.log_under(1) - _log_beta(a, b)


def _affine_beta(at: Place, concentration1: Any, concentration0: Any, loc: Any, scale: Any) -> Any:
    a, b = concentration1, concentration0
    up, down = at.log_over(loc) - np.log(scale), at.log_under(loc + scale) - np.log(scale)
    return (a - 1) * up + (b - 1) * down - _log_beta(a, b) - np.log(scale)


def _continuous_bernoulli(at: Place, **flip: Any) -> Any:
    eta = _log_odds(**flip)
    safe = np.where(eta == 0, LD(1), eta)
    return eta * at.x - np.where(eta == 0, LD(0), np.log(np.expm1(safe) / safe))


def _generalized_pareto(at: Place, loc: Any, scale: Any, concentration: Any) -> Any:
    xi, z = concentration, at.over(loc) / scale
    none = xi == 0
    safe = np.where(none, LD(1), xi)
    end = np.where(xi < 0, loc - scale / safe, LD(0))
    # 1 + xi z, near its end from the distance to it
    near_end = (xi < 0) & ((safe * z).real < -0.5)
    from_end = at.log_under(np.where(xi < 0, end, at.high)) + np.log(
        np.where(xi < 0, -safe, 1) / scale
    )
    log_rest = np.where(near_end, from_end, np.log1p(np.where(near_end, 0, safe * z)))
    far = (xi > 0) & (np.real(z) == np.inf)
    log_rest = np.where(far, np.log(np.abs(safe) / scale) + at.log_over(loc), log_rest)
    return -np.log(scale) - np.where(none, z, (1 + 1 / safe) * log_rest)


def _generalized_pareto_ends(loc: Any, scale: Any, concentration: Any) -> tuple[Any, Any]:
    xi = concentration
    return loc, np.where(xi < 0, loc - scale / np.where(xi < 0, xi, LD(-1)), LD("inf"))


def _kumaraswamy(at: Place, concentration1: Any, concentration0: Any) -> Any:
    a, b, low = concentration1, concentration0, at.over(0)
    log_x = np.where(low < 0.5, at.log_over(0), np.log1p(-at.under(1)))
    next_to_1 = np.log(a) + at.log_under(1)
    log_rest = np.where(next_to_1 < -70, next_to_1, log1mexp(a * log_x))
    return np.log(a * b) + (a - 1) * log_x + (b - 1) * log_rest


def _relaxed_bernoulli(at: Place, temperature: Any, **flip: Any) -> Any:
    log_x, log_rest = at.log_over(0), at.log_under(1)
    z = np.abs(_log_odds(**flip) - temperature * (log_x - log_rest))
    return np.log(temperature) - z - 2 * np.log1p(np.exp(-z)) - log_x - log_rest


def _middle_of_relaxed(temperature: Any, **flip: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(_log_odds(**flip) / temperature, -30, 30)))


def _uniform(at: Place, low: Any, high: Any) -> Any:
    return -np.log(high - low) + 0 * at.x


CONTINUOUS: dict[str, Continuous] = {
    "AffineBeta": Continuous(
        _affine_beta,
        lambda concentration1, concentration0, loc, scale: (
            loc + scale * concentration1 / (concentration1 + concentration0)
        ),
        lambda loc, scale, **_: (loc, loc + scale),
    ),
    "AsymmetricLaplace": Continuous(
        _asymmetric_laplace, _at_loc, _line, kinks=lambda loc, **_: (loc,)
    ),
    "Beta": Continuous(_beta, lambda concentration1, concentration0: (
        concentration1 / (concentration1 + concentration0)
    ), _unit),
    "Cauchy": Continuous(_cauchy, _at_loc, _line),
    "Chi2": Continuous(_chi2, lambda df: df, _half_line),
    "ContinuousBernoulli": Continuous(_continuous_bernoulli, lambda **_: LD(0.5), _unit),
    "Exponential": Continuous(_exponential, lambda rate: 1 / rate, _half_line),
    "FisherSnedecor": Continuous(_fisher_snedecor, lambda **_: LD(1), _half_line),
    "Gamma": Continuous(_gamma, lambda concentration, rate: concentration / rate, _half_line),
    "GeneralizedPareto": Continuous(
        _generalized_pareto,
        lambda loc, scale, concentration: loc + scale / (1 - np.minimum(concentration, 0)),
        _generalized_pareto_ends,
    ),
    "Gumbel": Continuous(_gumbel, _at_loc, _line, log_cost=_gumbel_cost),
    "HalfCauchy": Continuous(_half_cauchy, lambda scale: scale, _half_line),
    "HalfNormal": Continuous(_half_normal, lambda scale: scale, _half_line),
    "InverseGamma": Continuous(
        _inverse_gamma, lambda concentration, rate: rate / (concentration + 1), _half_line
    ),
    "Kumaraswamy": Continuous(_kumaraswamy, lambda concentration1, concentration0: (
        (1 - LD(2) ** (-1 / concentration0)) ** (1 / concentration1)
    ), _unit),
    "Laplace": Continuous(_laplace, _at_loc, _line, kinks=lambda loc, **_: (loc,)),
    "LogNormal": Continuous(_log_normal, lambda loc, scale: np.exp(loc), _half_line),
    "Logistic": Continuous(_logistic, _at_loc, _line),
    "Normal": Continuous(_normal, _at_loc, _line),
    "Pareto": Continuous(
        _pareto,
        lambda scale, alpha: scale * (1 + 1 / alpha),
        lambda scale, alpha: (scale, LD("inf")),
    ),
    "RelaxedBernoulli": Continuous(_relaxed_bernoulli, _middle_of_relaxed, _unit),
    "SkewLogistic": Continuous(_skew_logistic, _at_loc, _line),
    "SoftAsymmetricLaplace": Continuous(_soft_asymmetric_laplace, _at_loc, _line),
    "SoftLaplace": Continuous(_soft_laplace, _at_loc, _line),
    "StudentT": Continuous(_student_t, _at_loc, _line),
    "Uniform": Continuous(
        _uniform, lambda low, high: (low + high) / 2, lambda low, high: (low, high)
    ),
    "VonMises": Continuous(_von_mises, _on_circle, _circle, period=2 * PI),
    "Weibull": Continuous(
        _weibull, lambda scale, concentration: scale, _half_line, log_cost=_weibull_cost
    ),
}  # fmt: skip
