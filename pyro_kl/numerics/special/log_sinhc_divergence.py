r"""The Bregman divergence of L(x) = log(sinh(x/2) / (x/2)), with its digits near and far.

It is the KL of two continuous Bernoullis, whose log-partition function L is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..autograd.custom import with_partials
from .divergences import exp_excess, log1pmx
from .log_sinhc import SMALL, side_of

# Below 2 in size, L(x) = g(x^2) with a polynomial g, by Chebyshev's nodes: x^2 times its rest has
# these coefficients and an error of 2e-19. A power's divided differences are sums of powers.
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
#: From here on exp(-x/2) is nothing beside 1/x^2.
_LARGE = 100.0


class _Chain(NamedTuple):
    """g at X, and its divided differences at X (once, twice or thrice) and Y."""

    x: Tensor
    xx: Tensor
    xxx: Tensor
    xxy: Tensor
    xy: Tensor
    xyy: Tensor


def _differences(x: Tensor, y: Tensor) -> _Chain:
    """By Horner's scheme, all at once: a quotient's coefficients are the next one's to divide."""
    b: Any = _G[-1]
    xx: Any = 0.0
    xxx = xxy = xy = xyy = xx
    for c in (*reversed(_G[:-1]), 0.0):
        xyy = _step(xyy, y, xy)
        xxx, xxy = _step(xxx, x, xx), _step(xxy, y, xx)
        xy, xx = _step(xy, y, b), _step(xx, x, b)
        b = b * x + c
    return _Chain(b, xx, xxx, xxy, xy, xyy)


def _step(total: Any, x: Tensor, term: Any) -> Any:
    """total x + term, where a total that is not there yet costs nothing."""
    return term if isinstance(total, float) and total == 0 else total * x + term


class _Arguments(NamedTuple):
    """Both arguments turned so that the first is positive, and what is known of them.

    `ends` are 1/(exp(|x|) - 1). Sizes and ends are those of 1 where an argument is below, which
    no formula for large ones looks at; squares are 0 where an argument is not small.
    """

    turn: Tensor
    x: Tensor
    y: Tensor
    d: Tensor
    small: tuple[Tensor, Tensor]
    squares: tuple[Tensor, Tensor]
    g: _Chain
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
    """1 / (exp(size) - 1), which nothing overflows."""
    return torch.exp(-size) / -torch.expm1(-size)


def _close(a: _Arguments) -> tuple[Tensor, Tensor]:
    """Where two arguments that are not both small are close, and where exp(-x) matters there."""
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
    """By both arguments; their difference is what they make it."""
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

    Of small arguments, by g: d^2 (g'(X) + (x + y)^2 g[X, X, Y]). Of close ones, whose step is d, x
    being positive and e = 1/(exp(x) - 1): that of -log x, less a flip's: with u = d/x,

        [u - log(1 + u)] + [log(1 + v) - v] - e [exp(-d) - 1 + d],  v = e (1 - exp(-d))
    """
    a = _arguments(eta, other, d)
    x, y, step, g = a.x, a.y, a.d, a.g
    both_small = step * step * (g.xx + (x + y) * (x + y) * g.xxy)
    close, matters = _close(a)
    ratio = torch.where(close, step / a.sizes[0], 0.0)
    moved = torch.where(matters, step, 0.0)
    end = torch.where(matters, a.ends[0], 0.0)
    flip = log1pmx(-end * torch.expm1(-moved)) - end * exp_excess(moved)
    large = flip - log1pmx(ratio)
    # Far apart: |eta|/2 is linear on either side of 0, and is taken out by hand
    x_bounded, y_bounded = _bounded(a)
    x_end, _ = _smaller_ends(a)
    apart = 0.5 * (y.abs() - y) + (y_bounded - x_bounded) + step * x_end
    value = torch.where(close, large, apart)
    return torch.where(a.small[0] & a.small[1], both_small, value)
