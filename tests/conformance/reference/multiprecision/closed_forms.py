"""Textbook formulas of one family against itself, at 60 digits, where digits are there to lose.

The same distribution in the same family is where the formulas of the library are written
differently from the book's. Here they are as in the book, and nothing is done about cancellation:
mpmath has the
digits. They serve the tests of near-equal parameters and the distributions without a univariate
density.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mpmath import fsum, log, mp, mpf, psi
from mpmath import loggamma as lgamma

from .integrate import exact

DIGITS = 60


def _normal(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    s, t, gap = a["scale"], b["scale"], a["loc"] - b["loc"]
    return log(t / s) + (s**2 + gap**2) / (2 * t**2) - mpf(1) / 2


def _half_normal(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    return _normal({**a, "loc": 0}, {**b, "loc": 0})


def _gamma(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    k, r, m, s = a["concentration"], a["rate"], b["concentration"], b["rate"]
    return (k - m) * psi(0, k) - lgamma(k) + lgamma(m) + m * log(r / s) + k * (s - r) / r


def _exponential(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    return log(a["rate"] / b["rate"]) + b["rate"] / a["rate"] - 1


def _dirichlet(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    p, q = a["concentration"], b["concentration"]
    log_norm = [fsum(lgamma(x) for x in side) - lgamma(fsum(side)) for side in (p, q)]
    total = psi(0, fsum(p))
    shift = fsum((x - y) * (psi(0, x) - total) for x, y in zip(p, q, strict=True))
    return log_norm[1] - log_norm[0] + shift


def _beta(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    names = ("concentration1", "concentration0")
    p, q = ({"concentration": [side[name] for name in names]} for side in (a, b))
    return _dirichlet(p, q)


def _weights(parameters: Mapping[str, Any]) -> list[Any]:
    given = parameters.get("probs") or [mp.exp(x) for x in parameters["logits"]]
    return [x / fsum(given) for x in given]


def _categorical(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    atoms = list(zip(_weights(a), _weights(b), strict=True))
    if any(x and not y for x, y in atoms):
        return mp.inf
    return fsum(x * log(x / y) for x, y in atoms if x)


def _bernoulli(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    def of(side: Mapping[str, Any]) -> dict[str, list[Any]]:
        p = side["probs"] if "probs" in side else 1 / (1 + mp.exp(-side["logits"]))
        return {"probs": [1 - p, p]}

    return _categorical(of(a), of(b))


def _laplace(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    s, t, gap = a["scale"], b["scale"], abs(a["loc"] - b["loc"])
    return log(t / s) + (s * mp.exp(-gap / s) + gap) / t - 1


def _asymmetric_laplace(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    (left, right), (q_left, q_right) = (
        (x["scale"] * x["asymmetry"], x["scale"] / x["asymmetry"]) for x in (a, b)
    )
    total, gap = left + right, b["loc"] - a["loc"]
    if gap > 0:
        beyond = right**2 / total * mp.exp(-gap / right)
        before = beyond + gap - (right - left)
    else:
        before = left**2 / total * mp.exp(gap / left)
        beyond = before - gap + (right - left)
    return log((q_left + q_right) / total) - 1 + beyond / q_right + before / q_left


def _gumbel(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    s, t, gap = a["scale"], b["scale"], b["loc"] - a["loc"]
    shrunk = mp.exp(gap / t + lgamma(1 + s / t))
    return log(t / s) + mp.euler * (s / t - 1) - gap / t + shrunk - 1


def _weibull(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    k, m, s, t = a["concentration"], b["concentration"], a["scale"], b["scale"]
    power = mp.exp(m * log(s / t) + lgamma(1 + m / k))
    return log(k / m) - k * log(s) + m * log(t) + (k - m) * (log(s) - mp.euler / k) + power - 1


def _pareto(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    if a["scale"] < b["scale"]:
        return mp.inf
    ratio = b["alpha"] / a["alpha"]
    return b["alpha"] * log(a["scale"] / b["scale"]) - log(ratio) + ratio - 1


def _cauchy(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    s, t, gap = a["scale"], b["scale"], a["loc"] - b["loc"]
    return log(((s + t) ** 2 + gap**2) / (4 * s * t))


def _half_cauchy(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    return _cauchy({**a, "loc": 0}, {**b, "loc": 0})


def _poisson(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    return a["rate"] * log(a["rate"] / b["rate"]) - a["rate"] + b["rate"]


def _geometric(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    return _bernoulli(a, b) / a["probs"]


def _binomial(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    assert a["total_count"] == b["total_count"]
    return a["total_count"] * _bernoulli(a, b)


def _continuous_bernoulli(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    def log_norm(eta: Any) -> Any:
        return log(mp.expm1(eta) / eta) if eta else mpf(0)

    x, y = (log(side["probs"] / (1 - side["probs"])) for side in (a, b))
    mean = 1 / (1 - mp.exp(-x)) - 1 / x if x else mpf(1) / 2
    return (x - y) * mean - log_norm(x) + log_norm(y)


def _von_mises(a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    k, m, gap = a["concentration"], b["concentration"], a["loc"] - b["loc"]
    length = mp.besseli(1, k) / mp.besseli(0, k)
    return log(mp.besseli(0, m) / mp.besseli(0, k)) + length * (k - m * mp.cos(gap))


FORMULAS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Any]] = {
    "AsymmetricLaplace": _asymmetric_laplace,
    "Bernoulli": _bernoulli,
    "Beta": _beta,
    "Binomial": _binomial,
    "Categorical": _categorical,
    "Cauchy": _cauchy,
    "ContinuousBernoulli": _continuous_bernoulli,
    "Dirichlet": _dirichlet,
    "Exponential": _exponential,
    "Gamma": _gamma,
    "Geometric": _geometric,
    "Gumbel": _gumbel,
    "HalfCauchy": _half_cauchy,
    "HalfNormal": _half_normal,
    "InverseGamma": _gamma,
    "Laplace": _laplace,
    "LogNormal": _normal,
    "Normal": _normal,
    "OneHotCategorical": _categorical,
    "Pareto": _pareto,
    "Poisson": _poisson,
    "VonMises": _von_mises,
    "Weibull": _weibull,
}


def kl(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    """KL of two members of the family of that name, from constructor arguments."""
    with mp.workdps(DIGITS):
        p, q = ({key: exact(x) for key, x in side.items()} for side in (a, b))
        return FORMULAS[name](p, q)
