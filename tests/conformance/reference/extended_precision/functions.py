"""Functions that numpy lacks in extended precision (80 bits: 19 digits), from the book.

mpmath is too slow for an integral at every node: these are vectorised.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

LD = np.longdouble
EPS = float(np.finfo(LD).eps)
PI = LD("3.141592653589793238462643383279502884197")

#: Bernoulli numbers B_2, B_4, ... of Stirling's series.
_BERNOULLI = (
    "1/6", "-1/30", "1/42", "-1/30", "5/66", "-691/2730", "7/6", "-3617/510", "43867/798",
    "-174611/330", "854513/138",
)  # fmt: skip
_STIRLING = [
    LD(b.numerator) / LD(b.denominator)
    for b in (Fraction(x) / (2 * n * (2 * n - 1)) for n, x in enumerate(_BERNOULLI, 1))
]
_STIRLING_FROM = 12


def loggamma(x: Any) -> Any:
    """Stirling's series from 12 on, below that after as many steps up."""
    x = np.asarray(x, LD)
    product = np.ones_like(x)
    for _ in range(_STIRLING_FROM):
        low = x < _STIRLING_FROM
        if not low.any():
            break
        product = np.where(low, product * x, product)
        x = np.where(low, x + 1, x)
    series = np.zeros_like(x)
    for c in reversed(_STIRLING):
        series = series / x**2 + c
    return (x - LD(0.5)) * np.log(x) - x + np.log(2 * PI) / 2 + series / x - np.log(product)


def log_i0(k: Any) -> Any:
    """Log of the Bessel function I0 - k: the mean of exp(k (cos t - 1)) over the circle.

    Over as much of the circle as has any of it left.
    """
    k = np.asarray(k, LD)[..., None]
    part = np.minimum(PI, 14 / np.sqrt(np.maximum(k, LD(1e-3)))) / PI
    t = part * PI * (2 * np.arange(400) / LD(400) - 1)
    return np.log((part * np.exp(-2 * k * np.sin(t / 2) ** 2)).mean(-1))


def scaled_erfc(x: Any) -> Any:
    """exp(x^2) erfc(x) for x >= 0: the trapezoidal rule (Chiarella & Reichel 1968).

    With half-integer nodes the sum and the correction for the pole are both positive.
    """
    x = np.asarray(x, LD)
    step = LD("0.4")  # leaves exp(-(pi / step)^2) = 2e-27
    total = np.zeros_like(x)
    for n in range(18):
        t2 = ((n + LD(0.5)) * step) ** 2
        total += np.exp(-t2) / (t2 + x * x)
    inside = x < PI / step
    y = np.where(inside, x, 0)
    pole = 2 * np.exp(y * y) / (1 + np.exp(2 * PI * y / step))
    return 2 * step * x / PI * total + np.where(inside, pole, 0)


def log1mexp(x: Any) -> Any:
    """log(1 - exp(x)) for x < 0."""
    return np.where(x > -0.7, np.log(-np.expm1(x)), np.log1p(-np.exp(x)))


def log1pexp(x: Any) -> Any:
    """log(1 + exp(x)), of complex numbers too."""
    up = np.real(x) > 0
    return np.where(up, x, 0) + np.log1p(np.exp(np.where(up, -x, x)))


@cache
def gauss_legendre(count: int) -> tuple[Any, Any]:
    """Nodes and weights on (-1, 1): numpy's, and two of Newton's steps in extended precision."""
    x = np.polynomial.legendre.leggauss(count)[0].astype(LD)
    for _ in range(3):
        before, now = np.ones_like(x), x.copy()
        for n in range(2, count + 1):
            before, now = now, ((2 * n - 1) * x * now - (n - 1) * before) / n
        slope = count * (x * now - before) / (x * x - 1)
        x = x - now / slope
    return x, 2 / ((1 - x * x) * slope**2)


class _Arrays:
    """The functions of `densities` on arrays in extended precision: numpy's and those above."""

    number, pi = LD, PI
    #: exp of this is nothing beside 1.
    negligible = -70
    loggamma, log_i0, scaled_erfc, log1mexp, log1pexp = map(
        staticmethod, (loggamma, log_i0, scaled_erfc, log1mexp, log1pexp)
    )

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def end(self, x: Any) -> Any:
        """An end of a support."""
        return x


ARRAYS = _Arrays()
