"""The KL of a Normal and the log odds of a Beta, by one expectation: that of log(1 + exp(y))."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..autograd.custom import value_and_partials
from ..quadrature.fixed import equal_steps, panel
from .gamma import stirling, stirling_slope
from .logarithms import HALF_LOG_TAU

#: Up to this scale the trapezoidal rule in standard deviations is exact up to rounding: log(1 +
#: exp(y)) is analytic for |Im y| < pi, so that the error is exp(-2 pi^2 / (scale step)).
_NARROW = 2.0
_NUM_STEPS, _REACH = 73, 9.0
#: Nodes and ends of two panels. Above the last end log(1 + exp(-v)) is below rounding, and on each
#: panel a Gaussian of a larger scale is a polynomial up to rounding.
_PANELS = ((24, 0.0, 8.0), (40, 8.0, 40.0))
#: exp of this number is finite in float64.
_LARGEST = 700.0
_SQRT_TAU, _ROOT_HALF = math.exp(HALF_LOG_TAU), math.sqrt(0.5)


class _Nodes(NamedTuple):
    """Places and weights of the two rules, one column of weights for each sum.

    Args:
        z: standard deviations from the mean.
        of_z: weights of the Gaussian, and the same times z.
        y: places on both sides of 0.
        of_y: weights of f(y) - max(y, 0), of its derivative, and of f''(y).
    """

    z: Tensor
    of_z: Tensor
    y: Tensor
    of_y: Tensor


def _nodes() -> _Nodes:
    low = torch.tensor(-_REACH, dtype=torch.float64)
    z, step = equal_steps(low, _REACH, _NUM_STEPS)
    of_z = step * torch.exp(-0.5 * z**2) / _SQRT_TAU
    v, dv = (torch.cat(x) for x in zip(*(panel(*x) for x in _PANELS), strict=True))
    dv, slope = dv / _SQRT_TAU, torch.sigmoid(-v)
    excess, curvature = torch.log1p(torch.exp(-v)), slope * torch.sigmoid(v)
    sides = [torch.stack((excess, side * slope, curvature), 1) for side in (1, -1)]
    y, of_y = torch.cat((-v, v)), torch.cat([dv.unsqueeze(1) * x for x in sides])
    return _Nodes(z, torch.stack((of_z, z * of_z), 1), y, of_y)


_NODES = _nodes()
#: Nodes of both rules.
NUM_NODES = len(_NODES.z) + len(_NODES.y)


@value_and_partials(block=220)
def mean_softplus_excess(
    mean: Tensor, scale: Tensor, centre: Tensor, *, slopes: bool
) -> tuple[Tensor, ...]:
    r"""E f(y) - f(c) - f'(c) (E y - c) of f(y) = log(1 + exp(y)), for a normal y.

    It is the same for -y and -c, since f(y) - y/2 is even, so that c is taken to be below 0. With
    p = f'(c), which is then at most 1/2, f(c + d) - f(c) is log(1 + p (exp(d) - 1)).

    For a small scale, the trapezoidal rule in (y - mean)/scale. For a large one, E max(y, 0) in
    closed form, and the rest, log(1 + exp(-|y|)), by Gauss-Legendre in |y|. The derivative by the
    scale is E f'(y) (y - mean) / scale, or scale E f''(y).

    Returns:
        The value; with `slopes`, its derivatives by mean, scale and c.
    """
    z, of_z, y, of_y = (x.to(mean) for x in _NODES)
    side = torch.copysign(torch.ones_like(centre), -centre)
    mean, centre = side * mean, side * centre
    p, gap, narrow = torch.sigmoid(centre), mean - centre, scale < _NARROW

    column = p.unsqueeze(-1)
    d = torch.addcmul(gap.unsqueeze(-1), scale.clamp(max=_NARROW).unsqueeze(-1), z)
    inside = d.clamp(max=_LARGEST)
    growth = torch.expm1(inside)
    odds = growth * column
    ratio = torch.log1p(odds) + (d - inside)
    near = torch.mm(torch.addcmul(ratio, column, d, value=-1), of_z)[:, 0]

    wide = scale.clamp(min=_NARROW)
    part = -_ROOT_HALF * mean / wide
    places = torch.addcdiv(part.unsqueeze(-1), y, wide.unsqueeze(-1), value=_ROOT_HALF)
    of_f, of_slope, of_curvature = torch.mm(torch.exp(-places.square()), of_y).unbind(-1)
    # torch.special.ndtr is 1 + erf, without digits far below 0
    above = 0.5 * torch.erfc(part)
    far = wide * torch.exp(-part.square()) / _SQRT_TAU + mean * above + of_f / wide
    value = torch.where(narrow, near, far + torch.log1p(-p) - p * gap)
    if not slopes:
        return (value,)

    curvature = torch.addcmul(p, p, p, value=-1)
    near_mean, near_scale = torch.mm(growth / (1 + odds), of_z).unbind(-1)
    by_mean = torch.where(narrow, curvature * near_mean, above + of_slope / wide - p)
    by_scale = torch.where(narrow, curvature * near_scale, of_curvature)
    return value, side * by_mean, by_scale, -side * curvature * gap


@value_and_partials(block=1600)
def _stirling_excess(a: Tensor, b: Tensor, *, slopes: bool) -> tuple[Tensor, ...]:
    """F(a) + F(b) - F(a + b), F being the remainder of Stirling's formula."""
    x = torch.cat((a, b, a + b))
    of_a, of_b, of_both = stirling(x).chunk(3)
    if not slopes:
        return (of_a + of_b - of_both,)
    by_a, by_b, by_both = stirling_slope(x).chunk(3)
    return of_a + of_b - of_both, by_a - by_both, by_b - by_both


def kl_normal_log_odds(mean: Tensor, scale: Tensor, a: Tensor, b: Tensor) -> Tensor:
    r"""KL(Normal(mean, scale) || y), y being the log odds of a Beta(a, b).

    With f(y) = log(1 + exp(y)) and c = log(a/b), the cross entropy log B(a, b) + E [(a + b) f(y) -
    a y] is expanded around c. What is left of log B are remainders of Stirling's formula, F:

        KL = (a + b) E [f(y) - f(c) - f'(c) (y - c)] + F(a) + F(b) - F(a + b)
             - log scale - [log(2 pi) + 1] / 2
    """
    excess = mean_softplus_excess(mean, scale, torch.log(a / b))
    return (a + b) * excess + _stirling_excess(a, b) - torch.log(scale) - (HALF_LOG_TAU + 0.5)
