"""Densities and masses as the books write them, on mpmath numbers.

Each is called as `density(mp, x, **parameters)` and returns the logarithm. None is taken from the
package: its formulas are tested against these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyro_kl import Family


def _affine_beta(
    mp: Any, x: Any, concentration1: Any, concentration0: Any, loc: Any, scale: Any
) -> Any:
    width = mp.mpf(float(loc + scale)) - loc  # the end as float64 has it
    z = (x - loc) / width
    return _beta(mp, z, concentration1, concentration0) - mp.log(width)


def _asymmetric_laplace(mp: Any, x: Any, loc: Any, scale: Any, asymmetry: Any) -> Any:
    left, right = scale * asymmetry, scale / asymmetry
    distance = (loc - x) / left if x < loc else (x - loc) / right
    return -distance - mp.log(left + right)


def _beta(mp: Any, x: Any, concentration1: Any, concentration0: Any) -> Any:
    a, b = concentration1, concentration0
    norm = mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b)
    return (a - 1) * mp.log(x) + (b - 1) * mp.log(1 - x) - norm


def _cauchy(mp: Any, x: Any, loc: Any, scale: Any) -> Any:
    return -mp.log(mp.pi * scale) - mp.log1p(((x - loc) / scale) ** 2)


def _chi2(mp: Any, x: Any, df: Any) -> Any:
    a = df / 2
    return (a - 1) * mp.log(x) - x / 2 - a * mp.log(2) - mp.loggamma(a)


def _continuous_bernoulli(mp: Any, x: Any, probs: Any = None, logits: Any = None) -> Any:
    if not 0 <= x <= 1:
        return -mp.inf
    eta = mp.log(probs / (1 - probs)) if logits is None else logits
    return eta * x - (mp.log(mp.expm1(eta) / eta) if eta else 0)


def _exponential(mp: Any, x: Any, rate: Any) -> Any:
    return mp.log(rate) - rate * x


def _fisher_snedecor(mp: Any, x: Any, df1: Any, df2: Any) -> Any:
    a, b, r = df1 / 2, df2 / 2, df1 / df2
    norm = mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b)
    return a * mp.log(r) + (a - 1) * mp.log(x) - (a + b) * mp.log1p(r * x) - norm


def _gamma(mp: Any, x: Any, concentration: Any, rate: Any) -> Any:
    return (
        concentration * mp.log(rate)
        + (concentration - 1) * mp.log(x)
        - rate * x
        - mp.loggamma(concentration)
    )


def _generalized_pareto(mp: Any, x: Any, loc: Any, scale: Any, concentration: Any) -> Any:
    z, xi = (x - loc) / scale, concentration
    if z < 0 or 1 + xi * z <= 0:
        return -mp.inf
    tail = z if xi == 0 else (1 + 1 / xi) * mp.log1p(xi * z)
    return -mp.log(scale) - tail


def _gumbel(mp: Any, x: Any, loc: Any, scale: Any) -> Any:
    z = (x - loc) / scale
    return -z - mp.exp(-z) - mp.log(scale)


def _half_cauchy(mp: Any, x: Any, scale: Any) -> Any:
    return mp.log(2 / (mp.pi * scale)) - mp.log1p((x / scale) ** 2)


def _half_normal(mp: Any, x: Any, scale: Any) -> Any:
    return mp.log(2 / mp.pi) / 2 - mp.log(scale) - x**2 / (2 * scale**2)


def _inverse_gamma(mp: Any, x: Any, concentration: Any, rate: Any) -> Any:
    return (
        concentration * mp.log(rate)
        - (concentration + 1) * mp.log(x)
        - rate / x
        - mp.loggamma(concentration)
    )


def _kumaraswamy(mp: Any, x: Any, concentration1: Any, concentration0: Any) -> Any:
    a, b = concentration1, concentration0
    # 1 - x^a as -expm1(a log x): x may be next to 1
    rest = -mp.expm1(a * mp.log(x))
    return mp.log(a * b) + (a - 1) * mp.log(x) + (b - 1) * mp.log(rest)


def _laplace(mp: Any, x: Any, loc: Any, scale: Any) -> Any:
    return -abs(x - loc) / scale - mp.log(2 * scale)


def _logistic(mp: Any, x: Any, loc: Any, scale: Any) -> Any:
    z = abs(x - loc) / scale
    return -z - mp.log(scale) - 2 * mp.log1p(mp.exp(-z))


def _lognormal(mp: Any, x: Any, loc: Any, scale: Any) -> Any:
    y = mp.log(x)
    return -((y - loc) ** 2) / (2 * scale**2) - y - mp.log(scale) - mp.log(2 * mp.pi) / 2


def _normal(mp: Any, x: Any, loc: Any, scale: Any) -> Any:
    return -((x - loc) ** 2) / (2 * scale**2) - mp.log(scale) - mp.log(2 * mp.pi) / 2


def _pareto(mp: Any, x: Any, scale: Any, alpha: Any) -> Any:
    if x < scale:
        return -mp.inf
    return mp.log(alpha / scale) - (alpha + 1) * mp.log(x / scale)


def _relaxed_bernoulli(
    mp: Any, x: Any, temperature: Any, probs: Any = None, logits: Any = None
) -> Any:
    location = mp.log(probs / (1 - probs)) if logits is None else logits
    odds = location - temperature * (mp.log(x) - mp.log(1 - x))
    log_slope = -mp.log(x) - mp.log(1 - x)
    return mp.log(temperature) - abs(odds) - 2 * mp.log1p(mp.exp(-abs(odds))) + log_slope


def _skew_logistic(mp: Any, x: Any, loc: Any, scale: Any, asymmetry: Any) -> Any:
    z = (x - loc) / scale
    log1p_exp = mp.log1p(mp.exp(-z)) if z > 0 else -z + mp.log1p(mp.exp(z))
    return mp.log(asymmetry) - mp.log(scale) - z - (asymmetry + 1) * log1p_exp


def _erfc(mp: Any, z: Any) -> Any:
    """mpmath's own overflows at arguments that tests of a tail's decay reach."""
    if abs(z) < 1e5:
        return mp.erfc(z)
    if z < 0:
        return mp.mpf(2)
    w = 1 / (2 * z * z)
    return mp.exp(-z * z) / (z * mp.sqrt(mp.pi)) * (1 - w * (1 - 3 * w * (1 - 5 * w)))


def _soft_asymmetric_laplace(
    mp: Any, x: Any, loc: Any, scale: Any, asymmetry: Any = 1, softness: Any = 1
) -> Any:
    left, right, s = scale * asymmetry, scale / asymmetry, scale * softness

    def tail(distance: Any, length: Any) -> Any:
        """E exp(-(distance + s z) / length) on the side where that is positive, z standard."""
        shift = mp.exp(s**2 / (2 * length**2) - distance / length)
        return shift * _erfc(mp, (s / length - distance / s) / mp.sqrt(2)) / 2

    return mp.log((tail(x - loc, right) + tail(loc - x, left)) / (left + right))


def _soft_laplace(mp: Any, x: Any, loc: Any, scale: Any) -> Any:
    z = abs(x - loc) / scale
    return mp.log(2 / mp.pi) - mp.log(scale) - z - mp.log1p(mp.exp(-2 * z))


def _student_t(mp: Any, x: Any, df: Any, loc: Any, scale: Any) -> Any:
    norm = mp.loggamma((df + 1) / 2) - mp.loggamma(df / 2) - mp.log(df * mp.pi) / 2
    return norm - mp.log(scale) - (df + 1) / 2 * mp.log1p(((x - loc) / scale) ** 2 / df)


def _uniform(mp: Any, x: Any, low: Any, high: Any) -> Any:
    return -mp.log(high - low) if low <= x <= high else -mp.inf


def _von_mises(mp: Any, x: Any, loc: Any, concentration: Any) -> Any:
    log_norm = mp.log(2 * mp.pi * mp.besseli(0, concentration))
    return concentration * mp.cos(x - loc) - log_norm


def _weibull(mp: Any, x: Any, scale: Any, concentration: Any) -> Any:
    k, z = concentration, mp.log(x / scale)
    return mp.log(k / scale) + (k - 1) * z - mp.exp(k * z)


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


def _gamma_poisson(mp: Any, k: int, concentration: Any, rate: Any) -> Any:
    a = concentration
    ways = mp.loggamma(a + k) - mp.loggamma(a) - mp.loggamma(mp.mpf(k + 1))
    return ways + a * mp.log(rate / (1 + rate)) - k * mp.log(1 + rate)


def _geometric(mp: Any, k: int, probs: Any = None, logits: Any = None) -> Any:
    if probs == 1:
        return mp.mpf(0) if k == 0 else -mp.inf
    if logits is None:
        return mp.log(probs) + k * mp.log(1 - probs)
    return -mp.log(1 + mp.exp(-logits)) - k * mp.log(1 + mp.exp(logits))


def _negative_binomial(
    mp: Any, k: int, total_count: Any, probs: Any = None, logits: Any = None
) -> Any:
    p1 = probs if logits is None else 1 / (1 + mp.exp(-logits))
    mass = mp.rf(total_count, k) / mp.factorial(k) * p1**k * (1 - p1) ** total_count
    return mp.log(mass) if mass else -mp.inf


def _ordered_logistic(mp: Any, k: int, predictor: Any, cutpoints: Any) -> Any:
    if k > len(cutpoints):
        return -mp.inf
    below = [1 / (1 + mp.exp(predictor - c)) for c in cutpoints]
    return mp.log([*below, 1][k] - [0, *below][k])


def _poisson(mp: Any, k: int, rate: Any) -> Any:
    if rate == 0:
        return mp.mpf(0) if k == 0 else -mp.inf
    return k * mp.log(rate) - rate - mp.loggamma(mp.mpf(k + 1))


def _zero_inflated_negative_binomial(
    mp: Any, k: int, total_count: Any, gate: Any = None, gate_logits: Any = None, **flip: Any
) -> Any:
    g = gate if gate_logits is None else 1 / (1 + mp.exp(-gate_logits))
    base = mp.exp(_negative_binomial(mp, k, total_count, **flip))
    mass = (g if k == 0 else 0) + (1 - g) * base
    return mp.log(mass) if mass else -mp.inf


def _zero_inflated_poisson(
    mp: Any, k: int, rate: Any, gate: Any = None, gate_logits: Any = None
) -> Any:
    g = gate if gate_logits is None else 1 / (1 + mp.exp(-gate_logits))
    mass = (g if k == 0 else 0) + (1 - g) * mp.exp(_poisson(mp, k, rate))
    return mp.log(mass) if mass else -mp.inf


#: By the name of the family.
DENSITIES: Mapping[str, Callable[..., Any]] = {
    "AffineBeta": _affine_beta,
    "AsymmetricLaplace": _asymmetric_laplace,
    "Bernoulli": _bernoulli,
    "Beta": _beta,
    "BetaBinomial": _beta_binomial,
    "Binomial": _binomial,
    "Categorical": _categorical,
    "Cauchy": _cauchy,
    "Chi2": _chi2,
    "ContinuousBernoulli": _continuous_bernoulli,
    "Exponential": _exponential,
    "FisherSnedecor": _fisher_snedecor,
    "Gamma": _gamma,
    "GammaPoisson": _gamma_poisson,
    "GeneralizedPareto": _generalized_pareto,
    "Geometric": _geometric,
    "Gumbel": _gumbel,
    "HalfCauchy": _half_cauchy,
    "HalfNormal": _half_normal,
    "InverseGamma": _inverse_gamma,
    "Kumaraswamy": _kumaraswamy,
    "Laplace": _laplace,
    "LogNormal": _lognormal,
    "Logistic": _logistic,
    "NegativeBinomial": _negative_binomial,
    "Normal": _normal,
    "OrderedLogistic": _ordered_logistic,
    "Pareto": _pareto,
    "Poisson": _poisson,
    "RelaxedBernoulli": _relaxed_bernoulli,
    "SkewLogistic": _skew_logistic,
    "SoftAsymmetricLaplace": _soft_asymmetric_laplace,
    "SoftLaplace": _soft_laplace,
    "StudentT": _student_t,
    "Uniform": _uniform,
    "VonMises": _von_mises,
    "Weibull": _weibull,
    "ZeroInflatedNegativeBinomial": _zero_inflated_negative_binomial,
    "ZeroInflatedPoisson": _zero_inflated_poisson,
}


def log_density_of(family: Family) -> Callable[..., Any]:
    """The book's density of a family, or the one that a family of a test brings itself."""
    return family.log_density or DENSITIES[family.name]
