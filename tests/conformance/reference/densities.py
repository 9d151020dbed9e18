"""Densities and masses as the books write them, for numbers of any precision.

None is taken from the package: its formulas are tested against these. `m` has the functions of the
arithmetic: numpy's on arrays in extended precision (`extended_precision.functions.ARRAYS`), or
mpmath's on one number (`multiprecision.densities.NUMBERS`). A density is taken at a place `at`,
which has the distances from the ends of the support, and a mass at an integer k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def _log_beta(m: Any, a: Any, b: Any) -> Any:
    return m.loggamma(a) + m.loggamma(b) - m.loggamma(a + b)


def log_odds(m: Any, probs: Any = None, logits: Any = None) -> Any:
    return logits if probs is None else m.log(probs) - m.log1p(-probs)


# --- the line -----------------------------------------------------------------------------------


def _asymmetric_laplace(m: Any, at: Any, loc: Any, scale: Any, asymmetry: Any) -> Any:
    left, right, d = scale * asymmetry, scale / asymmetry, at.minus(loc)
    return m.where(d.real < 0, d / left, -d / right) - m.log(left + right)


def _cauchy(m: Any, at: Any, loc: Any, scale: Any) -> Any:
    return -m.log(m.pi * scale) - at.log1p_square(loc, scale)


def _gumbel(m: Any, at: Any, loc: Any, scale: Any) -> Any:
    z = at.minus(loc) / scale
    return -z - m.exp(-z) - m.log(scale)


def _laplace(m: Any, at: Any, loc: Any, scale: Any) -> Any:
    return _asymmetric_laplace(m, at, loc, scale, m.number(1))


def _logistic(m: Any, at: Any, loc: Any, scale: Any) -> Any:
    return _skew_logistic(m, at, loc, scale, m.number(1))


def _normal(m: Any, at: Any, loc: Any, scale: Any) -> Any:
    return -((at.minus(loc) / scale) ** 2) / 2 - m.log(scale) - m.log(2 * m.pi) / 2


def _skew_logistic(m: Any, at: Any, loc: Any, scale: Any, asymmetry: Any) -> Any:
    z = at.minus(loc) / scale
    size = m.where(z.real < 0, -z, z)
    log1p_exp = m.where(z.real < 0, -z, 0) + m.log1p(m.exp(-size))
    return m.log(asymmetry / scale) - z - (asymmetry + 1) * log1p_exp


def _soft_asymmetric_laplace(
    m: Any, at: Any, loc: Any, scale: Any, asymmetry: Any, softness: Any
) -> Any:
    """The sum of an AsymmetricLaplace and a Normal: the convolution's two sides."""
    left, right, s, d = scale * asymmetry, scale / asymmetry, scale * softness, at.minus(loc)

    def log_side(distance: Any, length: Any) -> Any:
        # log of exp(s^2 / (2 l^2) - d / l) erfc(u) / 2
        u = (s / length - distance / s) / m.sqrt(m.number(2))
        scaled = m.scaled_erfc(m.abs(u))
        # of the two exponents that make up d / l - s^2 / (2 l^2), u^2 takes all but this
        near = m.log(scaled) - (distance / s) ** 2 / 2
        far = s**2 / (2 * length**2) - distance / length
        erfc = 2 - scaled * m.exp(-u * u)
        return m.where(u > 0, near, far + m.log(erfc)) - m.log(m.number(2))

    return m.logaddexp(log_side(d, right), log_side(-d, left)) - m.log(left + right)


def _soft_laplace(m: Any, at: Any, loc: Any, scale: Any) -> Any:
    z = at.minus(loc) / scale
    z = m.where(z.real < 0, -z, z)
    return m.log(2 / (m.pi * scale)) - z - m.log1p(m.exp(-2 * z))


def _student_t(m: Any, at: Any, df: Any, loc: Any, scale: Any) -> Any:
    norm = m.loggamma((df + 1) / 2) - m.loggamma(df / 2) - m.log(df * m.pi) / 2 - m.log(scale)
    return norm - (df + 1) / 2 * at.log1p_square(loc, scale * m.sqrt(df))


def _von_mises(m: Any, at: Any, loc: Any, concentration: Any) -> Any:
    drop = 2 * m.sin((at.x - loc) / 2) ** 2
    return -concentration * drop - m.log(2 * m.pi) - m.log_i0(concentration)


# --- half-lines ---------------------------------------------------------------------------------


def _gamma(m: Any, at: Any, concentration: Any, rate: Any) -> Any:
    a, log_x = concentration, at.log_over(0)
    return a * m.log(rate) + (a - 1) * log_x - m.exp(log_x) * rate - m.loggamma(a)


def _chi2(m: Any, at: Any, df: Any) -> Any:
    return _gamma(m, at, df / 2, m.number(0.5))


def _exponential(m: Any, at: Any, rate: Any) -> Any:
    return m.log(rate) - rate * at.over(0)


def _fisher_snedecor(m: Any, at: Any, df1: Any, df2: Any) -> Any:
    a, b, log_x = df1 / 2, df2 / 2, at.log_over(0)
    log_z = m.log(df1 / df2) + log_x
    return a * log_z - log_x - (a + b) * m.log1pexp(log_z) - _log_beta(m, a, b)


def _half_cauchy(m: Any, at: Any, scale: Any) -> Any:
    return m.log(2 / (m.pi * scale)) - m.log1pexp(2 * (at.log_over(0) - m.log(scale)))


def _half_normal(m: Any, at: Any, scale: Any) -> Any:
    return m.log(2 / m.pi) / 2 - m.log(scale) - (at.over(0) / scale) ** 2 / 2


def _inverse_gamma(m: Any, at: Any, concentration: Any, rate: Any) -> Any:
    a, log_x = concentration, at.log_over(0)
    return a * m.log(rate) - (a + 1) * log_x - rate * m.exp(-log_x) - m.loggamma(a)


def _log_normal(m: Any, at: Any, loc: Any, scale: Any) -> Any:
    y = at.log_over(0)
    return -(((y - loc) / scale) ** 2) / 2 - y - m.log(scale) - m.log(2 * m.pi) / 2


def _pareto(m: Any, at: Any, scale: Any, alpha: Any) -> Any:
    return m.log(alpha / scale) - (alpha + 1) * m.log1pexp(at.log_over(scale) - m.log(scale))


def _weibull(m: Any, at: Any, scale: Any, concentration: Any) -> Any:
    log_z = at.log_over(0) - m.log(scale)
    k = concentration
    return m.log(k / scale) + (k - 1) * log_z - m.exp(k * log_z)


# --- intervals ----------------------------------------------------------------------------------


def _beta(m: Any, at: Any, concentration1: Any, concentration0: Any) -> Any:
    a, b = concentration1, concentration0
    return (a - 1) * at.log_over(0) + (b - 1) * at.log_under(1) - _log_beta(m, a, b)


def _affine_beta(
    m: Any, at: Any, concentration1: Any, concentration0: Any, loc: Any, scale: Any
) -> Any:
    a, b = concentration1, concentration0
    high = m.end(loc + scale)
    width = high - loc
    up, down = at.log_over(loc) - m.log(width), at.log_under(high) - m.log(width)
    return (a - 1) * up + (b - 1) * down - _log_beta(m, a, b) - m.log(width)


def _continuous_bernoulli(m: Any, at: Any, **flip: Any) -> Any:
    eta = log_odds(m, **flip)
    safe = m.where(eta == 0, m.number(1), eta)
    return eta * at.x - m.where(eta == 0, m.number(0), m.log(m.expm1(safe) / safe))


def _generalized_pareto(m: Any, at: Any, loc: Any, scale: Any, concentration: Any) -> Any:
    xi, z = concentration, at.over(loc) / scale
    none = xi == 0
    safe = m.where(none, m.number(1), xi)
    end = m.where(xi < 0, loc - scale / safe, m.number(0))
    # 1 + xi z, near its end from the distance to it
    near_end = (xi < 0) & ((safe * z).real < -0.5)
    from_end = at.log_under(m.where(xi < 0, end, at.high)) + m.log(
        m.where(xi < 0, -safe, 1) / scale
    )
    log_rest = m.where(near_end, from_end, m.log1p(m.where(near_end, 0, safe * z)))
    far = (xi > 0) & (m.real(z) == m.inf)
    log_rest = m.where(far, m.log(m.abs(safe) / scale) + at.log_over(loc), log_rest)
    return -m.log(scale) - m.where(none, z, (1 + 1 / safe) * log_rest)


def _kumaraswamy(m: Any, at: Any, concentration1: Any, concentration0: Any) -> Any:
    a, b, low = concentration1, concentration0, at.over(0)
    log_x = m.where(low < 0.5, at.log_over(0), m.log1p(-at.under(1)))
    next_to_1 = m.log(a) + at.log_under(1)
    log_rest = m.where(next_to_1 < m.negligible, next_to_1, m.log1mexp(a * log_x))
    return m.log(a * b) + (a - 1) * log_x + (b - 1) * log_rest


def _relaxed_bernoulli(m: Any, at: Any, temperature: Any, **flip: Any) -> Any:
    log_x, log_rest = at.log_over(0), at.log_under(1)
    z = m.abs(log_odds(m, **flip) - temperature * (log_x - log_rest))
    return m.log(temperature) - z - 2 * m.log1p(m.exp(-z)) - log_x - log_rest


def _uniform(m: Any, at: Any, low: Any, high: Any) -> Any:
    return -m.log(high - low) + 0 * at.x


# --- counts -------------------------------------------------------------------------------------


def _poisson(m: Any, k: Any, rate: Any) -> Any:
    safe = m.where(rate > 0, rate, m.number(1))
    atom = m.where(k == 0, m.number(0), -m.inf)
    return m.where(rate > 0, k * m.log(safe) - rate - m.loggamma(k + 1), atom)


def _negative_binomial(
    m: Any, k: Any, total_count: Any, probs: Any = None, logits: Any = None
) -> Any:
    if probs is None:
        log_p1, log_p0 = -m.log1p(m.exp(-logits)), -m.log1p(m.exp(logits))
    else:
        log_p1, log_p0 = m.log(probs), m.log1p(-probs)
    ways = m.loggamma(total_count + k) - m.loggamma(total_count) - m.loggamma(k + 1)
    return ways + m.where(k == 0, 0, k * log_p1) + total_count * log_p0


def _gamma_poisson(m: Any, k: Any, concentration: Any, rate: Any) -> Any:
    return _negative_binomial(m, k, concentration, logits=-m.log(rate))


def _geometric(m: Any, k: Any, probs: Any = None, logits: Any = None) -> Any:
    if probs is None:
        return -m.log1p(m.exp(-logits)) - k * m.log1p(m.exp(logits))
    rest = m.where(probs == 1, m.number(0.5), 1 - probs)
    atom = m.where(k == 0, m.number(0), -m.inf)
    return m.where(probs == 1, atom, m.log(probs) + k * m.log(rest))


def _inflated(log_mass: Callable[..., Any]) -> Callable[..., Any]:
    def of_gate(
        m: Any, k: Any, gate: Any = None, gate_logits: Any = None, **distribution: Any
    ) -> Any:
        if gate is None:
            log_closed, log_opened = (
                -m.log1p(m.exp(-gate_logits)),
                -m.log1p(m.exp(gate_logits)),
            )
        else:
            log_closed, log_opened = m.log(gate), m.log1p(-gate)
        counted = log_opened + log_mass(m, k, **distribution)
        return m.where(k == 0, m.logaddexp(log_closed, counted), counted)

    return of_gate


#: `density(m, at, **parameters)`, the logarithm, by the name of the family.
DENSITIES: Mapping[str, Callable[..., Any]] = {
    "AffineBeta": _affine_beta,
    "AsymmetricLaplace": _asymmetric_laplace,
    "Beta": _beta,
    "Cauchy": _cauchy,
    "Chi2": _chi2,
    "ContinuousBernoulli": _continuous_bernoulli,
    "Exponential": _exponential,
    "FisherSnedecor": _fisher_snedecor,
    "Gamma": _gamma,
    "GeneralizedPareto": _generalized_pareto,
    "Gumbel": _gumbel,
    "HalfCauchy": _half_cauchy,
    "HalfNormal": _half_normal,
    "InverseGamma": _inverse_gamma,
    "Kumaraswamy": _kumaraswamy,
    "Laplace": _laplace,
    "LogNormal": _log_normal,
    "Logistic": _logistic,
    "Normal": _normal,
    "Pareto": _pareto,
    "RelaxedBernoulli": _relaxed_bernoulli,
    "SkewLogistic": _skew_logistic,
    "SoftAsymmetricLaplace": _soft_asymmetric_laplace,
    "SoftLaplace": _soft_laplace,
    "StudentT": _student_t,
    "Uniform": _uniform,
    "VonMises": _von_mises,
    "Weibull": _weibull,
}
#: `mass(m, k, **parameters)`, the logarithm.
MASSES: Mapping[str, Callable[..., Any]] = {
    "GammaPoisson": _gamma_poisson,
    "Geometric": _geometric,
    "NegativeBinomial": _negative_binomial,
    "Poisson": _poisson,
    "ZeroInflatedNegativeBinomial": _inflated(_negative_binomial),
    "ZeroInflatedPoisson": _inflated(_poisson),
}
