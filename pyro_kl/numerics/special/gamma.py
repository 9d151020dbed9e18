"""Trigamma, the remainder of Stirling's formula, log beta, and log of a ratio of gamma functions.

The derivatives are written by hand for their digits: autograd would take `torch.polygamma`, whose
relative error is 5e-10 in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..autograd.custom import with_partials
from .logarithms import HALF_LOG_TAU
from .series import horner

# B_2k / (2k (2k - 1)), k = 1..8: Stirling's series (Abramowitz & Stegun 1964, 6.1.40).
_STIRLING = (
    1 / 12,
    -1 / 360,
    1 / 1260,
    -1 / 1680,
    1 / 1188,
    -691 / 360360,
    1 / 156,
    -3617 / 122400,
)
# c_k of sum_k c_k x^(1 - 2k), and of its derivatives by x.
_SLOPE = tuple((1 - 2 * k) * c for k, c in enumerate(_STIRLING, 1))
_CURVATURE = tuple((2 * k - 1) * 2 * k * c for k, c in enumerate(_STIRLING, 1))
# From here on eight terms of Stirling's series leave a relative error below 1e-16.
_STIRLING_FROM = 12
EULER_GAMMA = 0.57721566490153286061


def trigamma(x: Tensor) -> Tensor:
    """The second derivative of log gamma, for positive x.

    It is faster than `torch.special.zeta(2, x)`.
    """
    inverse = 1 / (x + _STIRLING_FROM)
    square = inverse * inverse
    series = horner(_CURVATURE, square) * square
    return _sum_of_inverse_squares(x) + ((series + 0.5 * inverse) * inverse + inverse)


def rough_trigamma(x: Tensor) -> Tensor:
    """Trigamma with an error of up to 7 %, for the width of a density."""
    return (x + 0.5 + 0.5 / (1 + x)) / (x * x)


# F(x) = lgamma(x) - x log x + x is the remainder of Stirling's formula x log x - x. From 12 on it
# is -log(x)/2 + log(2 pi)/2 + sum_k c_k x^(1 - 2k), below 12 the difference itself. Its Bregman
# divergence is in gamma_divergences.py.


def _stirling_curvature(x: Tensor) -> Tensor:
    """F''(x) = trigamma(x) - 1/x."""
    small = x < _STIRLING_FROM
    up = x + torch.where(small, 1.0 * _STIRLING_FROM, 0.0).to(x.dtype)
    inverse = 1 / up
    square = inverse * inverse
    series = (horner(_CURVATURE, square) * inverse + 0.5) * square
    added = _sum_of_inverse_squares(torch.where(small, x, 1.0)) + inverse - 1 / x
    return series + torch.where(small, added, 0.0)


@with_partials(lambda x: (_stirling_curvature(x),))
def stirling_slope(x: Tensor) -> Tensor:
    """F'(x) = digamma(x) - log x."""
    large = x >= _STIRLING_FROM
    big, little = torch.where(large, x, 1.0 * _STIRLING_FROM), torch.where(large, 1.0, x)
    inverse = 1 / big
    square = inverse * inverse
    above = horner(_SLOPE, square) * square - 0.5 * inverse
    return torch.where(large, above, torch.digamma(little) - torch.log(little))


@with_partials(lambda x: (stirling_slope(x),))
def stirling(x: Tensor) -> Tensor:
    """F(x) for positive x."""
    large = x >= _STIRLING_FROM
    big, little = torch.where(large, x, 1.0 * _STIRLING_FROM), torch.where(large, 1.0, x)
    log_x, inverse = torch.log(x), 1 / big
    square = inverse * inverse
    above = horner(_STIRLING, square) * inverse - 0.5 * log_x + HALF_LOG_TAU
    below = torch.lgamma(little) - little * log_x + little
    return torch.where(large, above, below)


# Twelve inverse squares are summed in six pairs: (x + j) (x + 11 - j) = z + k with z = x (x + 11)
# and k = j (11 - j), and (2 x + 11)^2 = 4 (z + k) + 121 - 4 k.
_PAIRED = tuple(j * (_STIRLING_FROM - 1 - j) for j in range(_STIRLING_FROM // 2))
_LAST = _STIRLING_FROM - 1


def _sum_of_inverse_squares(x: Tensor) -> Tensor:
    """The sum of 1 / (x + j)^2, j = 0..11: each pair is r (2 + (121 - 4 k) r), r = 1 / (z + k)."""
    z, total = x * (x + _LAST), torch.zeros_like(x)
    for k in _PAIRED:
        r = 1 / (z + k)
        total = total + r * (r * (_LAST**2 - 4 * k) + 2)
    return total


def log_beta(a: Tensor, b: Tensor) -> Tensor:
    """Log of the beta function."""
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


# --- log Gamma(x + 1/2) - log Gamma(x) - log(x) / 2 ---------------------------------------------

#: c_k of sum_k c_k x^(1 - 2k), the difference of two Stirling series (Tricomi & Erdelyi 1951).
#: Eight terms leave less than 1e-17 from 16 on.
_GAP = (
    -1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432, 691 / 180224, -5461 / 425984,
    929569 / 15728640,
)  # fmt: skip
_GAP_SLOPE = tuple((1 - 2 * k) * c for k, c in enumerate(_GAP, 1))
_GAP_CURVATURE = tuple(-2 * k * c for k, c in enumerate(_GAP_SLOPE, 1))
_GAP_FROM = 16.0


def _gap(
    x: Tensor, coefficients: Sequence[float], power: int, direct: Callable[[Tensor], Tensor]
) -> Tensor:
    """x^-power times the series where x is large, else the direct formula."""
    large = x >= _GAP_FROM
    inverse = 1 / torch.where(large, x, _GAP_FROM)
    series = inverse**power * horner(coefficients, inverse * inverse)
    return torch.where(large, series, direct(torch.where(large, 1.0, x)))


def _gap_curvature(x: Tensor) -> Tensor:
    return _gap(x, _GAP_CURVATURE, 3, lambda y: trigamma(y + 0.5) - trigamma(y) + 0.5 / y**2)


@with_partials(lambda x: (_gap_curvature(x),))
def gamma_gap_slope(x: Tensor) -> Tensor:
    """The derivative of `gamma_gap`."""
    return _gap(x, _GAP_SLOPE, 2, lambda y: torch.digamma(y + 0.5) - torch.digamma(y) - 0.5 / y)


@with_partials(lambda x: (gamma_gap_slope(x),))
def gamma_gap(x: Tensor) -> Tensor:
    """Log Gamma(x + 1/2) - log Gamma(x) - log(x) / 2; the constant of a StudentT has it."""
    return _gap(x, _GAP, 1, lambda y: torch.lgamma(y + 0.5) - torch.lgamma(y) - 0.5 * torch.log(y))
