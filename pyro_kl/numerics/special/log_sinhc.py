r"""L(x) = log(sinh(x/2) / (x/2)), its derivatives and its Bregman divergence.

L is the even part of log E exp(x u) for u uniform on (0, 1): of a uniform's Laplace transform, and
of the log-partition function of a continuous Bernoulli. Its Bregman divergence is the KL of two
continuous Bernoullis. The derivatives are written by hand for digits: autograd's differences of
1/x and 1/(exp(x) - 1) cancel at x = 0.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..autograd.custom import with_partials
from .logarithms import expm1mx, log1pmx
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
    """-1 or 1: with torch.sign(0) = 0, parts of a smooth function would vanish at 0."""
    return torch.where(eta < 0, -1.0, 1.0).to(eta.dtype)


def _split(eta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where eta is small; |eta| there and 0 elsewhere; |eta| elsewhere and SMALL there."""
    size = side_of(eta) * eta
    small = size < SMALL
    return small, torch.where(small, size, 0.0), torch.where(small, SMALL, size)


def log_sinhc_curvature(eta: Tensor) -> Tensor:
    """L''(eta) = 1/eta^2 - 1/(4 sinh(eta/2)^2)."""
    small, near, far = _split(eta)
    # exp(-u) / (1 - exp(-u))^2 instead of 1 / (4 sinh(u/2)^2), which overflows
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
    """L(eta) - eta d, where d is `deviation`.

    `from_nearer_end` is 1/2 - d for eta >= 0 and 1/2 + d for eta < 0. Around eta = 0 both terms
    are small; elsewhere |eta|/2 is subtracted from both.
    """
    small, near, _ = _split(eta)
    close = near * near * horner(_L, near * near) - torch.where(small, eta, 0.0) * deviation
    far = log_sinhc_bounded(eta) + eta.abs() * from_nearer_end
    return torch.where(small, close, far)


# --- the Bregman divergence ---------------------------------------------------------------------

# For |x| < 2, L(x) = g(x^2), and g(X) is X times the polynomial with these coefficients
# (interpolation at Chebyshev nodes), to 2e-19. Divided differences of a power are sums of powers.
_G = (
    0.041666666666666664,
    -0.0003472222222222218,
    5.511463844792886e-06,
    -1.0333994707314572e-07,
    2.0876756649925053e-09,
    -4.403487806479802e-11,
    9.558661979026158e-13,
    -2.1171582922749517e-14,
    4.727079185118733e-16,
    -1.0034468753192612e-17,
    1.52952172095272e-19,
)
#: From here on exp(-x/2) is negligible beside 1/x^2.
_LARGE = 100.0


class _Differences(NamedTuple):
    """g(X), and the divided differences of g: xxy is g[X, X, Y]."""

    x: Tensor
    xx: Tensor
    xxx: Tensor
    xxy: Tensor
    xy: Tensor
    xyy: Tensor


def _differences(x: Tensor, y: Tensor) -> _Differences:
    """All of them in one pass of Horner's scheme.

    A divided difference is the value of a quotient polynomial, whose coefficients are the partial
    sums of the scheme before it.
    """
    b: Any = _G[-1]
    xx: Any = 0.0
    xxx = xxy = xy = xyy = xx
    for c in (*reversed(_G[:-1]), 0.0):
        xyy = _step(xyy, y, xy)
        xxx, xxy = _step(xxx, x, xx), _step(xxy, y, xx)
        xy, xx = _step(xy, y, b), _step(xx, x, b)
        b = b * x + c
    return _Differences(b, xx, xxx, xxy, xy, xyy)


def _step(total: Any, x: Tensor, term: Any) -> Any:
    """total x + term; the first total is the number 0 and needs no operation."""
    return term if isinstance(total, float) and total == 0 else total * x + term


class _Arguments(NamedTuple):
    """Both arguments times the sign of the first, and functions of them.

    `d` is y - x, `sizes` are |x| and |y|, at least 1, and `ends` are 1/(exp(size) - 1): only
    formulas for large arguments use them. `squares` are x^2 and y^2 where the argument is small,
    else 0.
    """

    turn: Tensor
    x: Tensor
    y: Tensor
    d: Tensor
    small: tuple[Tensor, Tensor]
    squares: tuple[Tensor, Tensor]
    g: _Differences
    sizes: tuple[Tensor, Tensor]
    ends: tuple[Tensor, Tensor]


def _arguments(eta: Tensor, other: Tensor, d: Tensor) -> _Arguments:
    turn = side_of(eta)
    x, y = turn * eta, turn * other
    sizes = x.clamp(min=1.0), y.abs().clamp(min=1.0)
    small = x < SMALL, sizes[1] < SMALL
    squares = torch.where(small[0], x * x, 0.0), torch.where(small[1], y * y, 0.0)
    g = _differences(*squares)
    return _Arguments(
        turn, x, y, turn * d, small, squares, g, sizes, (_end(sizes[0]), _end(sizes[1]))
    )


def _end(size: Tensor) -> Tensor:
    """1 / (exp(size) - 1), without overflow."""
    return torch.exp(-size) / -torch.expm1(-size)


def _close(a: _Arguments) -> tuple[Tensor, Tensor]:
    """Where the arguments are close, if they are not both small; where exp(-x) matters too."""
    close = a.d.abs() < 0.5 * a.x
    return close, close & (a.x < _LARGE)


def _smaller_ends(a: _Arguments) -> tuple[Tensor, Tensor]:
    """`mean_of_smaller_end` of both."""
    x_slope, y_slope = 2 * a.g.xx, 2 * (a.g.xy + (a.squares[1] - a.squares[0]) * a.g.xyy)
    y_size = side_of(a.y) * a.y
    return (
        torch.where(a.small[0], 0.5 - a.x * x_slope, 1 / a.sizes[0] - a.ends[0]),
        torch.where(a.small[1], 0.5 - y_size * y_slope, 1 / a.sizes[1] - a.ends[1]),
    )


def _bounded(a: _Arguments) -> tuple[Tensor, Tensor]:
    """`log_sinhc_bounded` of both."""
    g_y = a.g.x + (a.squares[1] - a.squares[0]) * a.g.xy
    x_far, y_far = (torch.log(-torch.expm1(-size) / size) for size in a.sizes)
    return (
        torch.where(a.small[0], a.g.x - 0.5 * a.x, x_far),
        torch.where(a.small[1], g_y - 0.5 * a.y.abs(), y_far),
    )


def _bregman_partials(eta: Tensor, other: Tensor, d: Tensor) -> tuple[Tensor, Tensor, None]:
    """By both arguments; the difference d is a function of them."""
    a = _arguments(eta, other, d)
    x, y, step, g = a.x, a.y, a.d, a.g
    curvature = torch.where(
        a.small[0],
        2 * g.xx + 8 * a.squares[0] * g.xxx,
        1 / (a.sizes[0] * a.sizes[0]) - a.ends[0] * (1 + a.ends[0]),
    )
    both_small = 2 * step * (g.xx + y * (x + y) * (g.xxy + g.xyy))
    close, matters = _close(a)
    growth = torch.expm1(torch.where(matters, step, 0.0))
    large = step / (a.sizes[0] * a.sizes[1]) - growth * (1 + a.ends[0]) * a.ends[1]
    x_end, y_end = _smaller_ends(a)
    apart = x_end + torch.where(y < 0, y_end - 1, -y_end)
    rise = torch.where(close, large, apart)
    rise = torch.where(a.small[0] & a.small[1], both_small, rise)
    return -d * curvature, a.turn * rise, None


@with_partials(_bregman_partials)
def bregman_log_sinhc(eta: Tensor, other: Tensor, d: Tensor) -> Tensor:
    """L(other) - L(eta) - d L'(eta) >= 0, with d = other - eta given.

    Small arguments: d^2 (g'(X) + (x + y)^2 g[X, X, Y]). Close arguments, for x > 0 and
    e = 1/(exp(x) - 1), with u = d/x and v = e (1 - exp(-d)):

        [u - log(1 + u)] + [log(1 + v) - v] - e [exp(-d) - 1 + d]
    """
    a = _arguments(eta, other, d)
    x, y, step, g = a.x, a.y, a.d, a.g
    both_small = step * step * (g.xx + (x + y) * (x + y) * g.xxy)
    close, matters = _close(a)
    ratio = torch.where(close, step / a.sizes[0], 0.0)
    moved = torch.where(matters, step, 0.0)
    end = torch.where(matters, a.ends[0], 0.0)
    of_ends = log1pmx(-end * torch.expm1(-moved)) - end * expm1mx(-moved)
    large = of_ends - log1pmx(ratio)
    # Far apart: |eta|/2, which is linear on either side of 0, is subtracted from each term
    x_bounded, y_bounded = _bounded(a)
    x_end, _ = _smaller_ends(a)
    apart = 0.5 * (y.abs() - y) + (y_bounded - x_bounded) + step * x_end
    value = torch.where(close, large, apart)
    return torch.where(a.small[0] & a.small[1], both_small, value)
