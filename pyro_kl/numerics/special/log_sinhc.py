r"""L(x) = log(sinh(x/2) / (x/2)), its slope and its curvature.

The even part of log E exp(x u) for a uniform u: of a uniform's Laplace transform, and of a
continuous Bernoulli's log-partition function.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

from ..autograd.custom import with_partials
from .series import economised, horner


def _bernoulli_over_factorial(count: int) -> tuple[Fraction, ...]:
    """B_2n / (2n)!, n = 1..count: the coefficients of z / (exp(z) - 1)."""
    b = [Fraction(1)]
    for n in range(1, 2 * count + 1):
        b.append(-sum((b[k] / math.factorial(n + 1 - k) for k in range(n)), Fraction(0)))
    return tuple(b[2 * n] for n in range(1, count + 1))


# The series' radius is 2 pi: eighteen terms leave 1e-18 below 2.
SMALL = 2.0
_TAYLOR = tuple(enumerate(_bernoulli_over_factorial(18), 1))
_B = economised([b for _, b in _TAYLOR], SMALL**2)
_L = economised([b / (2 * n) for n, b in _TAYLOR], SMALL**2)
_L_ENTROPY = economised([b / (2 * n) - b for n, b in _TAYLOR], SMALL**2)
_L_CURVATURE = economised([b * (2 * n - 1) for n, b in _TAYLOR], SMALL**2)


def side_of(eta: Tensor) -> Tensor:
    """-1 or 1, also at 0: what is smooth there as a whole must be so in each of its parts."""
    return torch.where(eta < 0, -1.0, 1.0).to(eta.dtype)


def _split(eta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where eta is small; |eta| there; |eta| elsewhere."""
    size = side_of(eta) * eta
    small = size < SMALL
    return small, torch.where(small, size, 0.0), torch.where(small, SMALL, size)


def log_sinhc_curvature(eta: Tensor) -> Tensor:
    """L''(eta) = 1/eta^2 - 1/(4 sinh(eta/2)^2)."""
    small, near, far = _split(eta)
    # exp(-u) / (1 - exp(-u))^2 does not overflow as sinh does
    direct = 1 / far**2 - torch.exp(-far) / torch.expm1(-far) ** 2
    return torch.where(small, horner(_L_CURVATURE, near * near), direct)


@with_partials(lambda eta: (-side_of(eta) * log_sinhc_curvature(eta),))
def mean_of_smaller_end(eta: Tensor) -> Tensor:
    """E of x for eta < 0 and of 1 - x for eta >= 0: 1/|eta| - 1/(exp(|eta|) - 1)."""
    small, near, far = _split(eta)
    series = 0.5 - near * horner(_B, near * near)
    return torch.where(small, series, 1 / far - torch.exp(-far) / -torch.expm1(-far))


@with_partials(lambda eta: (-side_of(eta) * mean_of_smaller_end(eta),))
def log_sinhc_bounded(eta: Tensor) -> Tensor:
    """L(eta) - |eta|/2 = log((1 - exp(-|eta|)) / |eta|)."""
    small, near, far = _split(eta)
    series = near * near * horner(_L, near * near) - 0.5 * near
    return torch.where(small, series, torch.log(-torch.expm1(-far) / far))


def log_sinhc_slope(eta: Tensor) -> Tensor:
    """L'(eta): the mean minus 1/2."""
    return side_of(eta) * (0.5 - mean_of_smaller_end(eta))


@with_partials(lambda eta: (-eta * log_sinhc_curvature(eta),))
def entropy_of_tilted(eta: Tensor) -> Tensor:
    """L(eta) - eta L'(eta): the entropy, 0 for the uniform and of second order around it."""
    small, near, _ = _split(eta)
    square = near * near
    far = log_sinhc_bounded(eta) + eta.abs() * mean_of_smaller_end(eta)
    return torch.where(small, square * horner(_L_ENTROPY, square), far)


def log_sinhc_minus(eta: Tensor, deviation: Tensor, from_nearer_end: Tensor) -> Tensor:
    """L(eta) - eta d, where d is `deviation`, and 1/2 - |d| towards eta's end `from_nearer_end`.

    Around 0 both terms are small; far from it |eta|/2 is taken out of either.
    """
    small, near, _ = _split(eta)
    close = near * near * horner(_L, near * near) - torch.where(small, eta, 0.0) * deviation
    far = log_sinhc_bounded(eta) + eta.abs() * from_nearer_end
    return torch.where(small, close, far)
