"""Textbook formulas of one family against itself, at 60 digits, where digits are there to lose.

The same law in the same family is where the formulas of the library are written differently from
the book's. Here they are as in the book, and nothing is done about cancellation: mpmath has the
digits. They serve the tests of near-equal parameters and the laws without a univariate density.
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


FORMULAS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Any]] = {
    "Bernoulli": _bernoulli,
    "Beta": _beta,
    "Categorical": _categorical,
    "Dirichlet": _dirichlet,
    "Exponential": _exponential,
    "Gamma": _gamma,
    "HalfNormal": _half_normal,
    "InverseGamma": _gamma,
    "LogNormal": _normal,
    "Normal": _normal,
    "OneHotCategorical": _categorical,
}


def kl(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    """KL of two members of the family of that name, from constructor arguments."""
    with mp.workdps(DIGITS):
        p, q = ({key: exact(x) for key, x in side.items()} for side in (a, b))
        return FORMULAS[name](p, q)
