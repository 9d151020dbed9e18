"""The KL of a Normal and the log odds of a Beta, by one expectation: that of log(1 + exp(y))."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..autograd.custom import value_and_partials
from ..quadrature.fixed import equal_steps, panel
from .gamma import stirling
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
    """Places and weights of the two rules.

    Args:
        z: standard deviations from the mean.
        of_z: the Gaussian's weights; times z in the second column.
        v: distances from 0.
        excess: weights of log(1 + exp(-v)).
        slope: weights of 1 / (1 + exp(v)).
    """

    z: Tensor
    of_z: Tensor
    v: Tensor
    excess: Tensor
    slope: Tensor


def _nodes() -> _Nodes:
    low = torch.tensor(-_REACH, dtype=torch.float64)
    z, step = equal_steps(low, _REACH, _NUM_STEPS)
    of_z = step * torch.exp(-0.5 * z**2) / _SQRT_TAU
    v, dv = (torch.cat(x) for x in zip(*(panel(*x) for x in _PANELS), strict=True))
    dv = dv / _SQRT_TAU
    excess, slope = dv * torch.log1p(torch.exp(-v)), dv * torch.sigmoid(-v)
    return _Nodes(z, torch.stack((of_z, z * of_z), 1), v, excess, slope)


_NODES = _nodes()
#: Nodes of both rules.
NUM_NODES = len(_NODES.z) + len(_NODES.v)


@value_and_partials(block=220)
def mean_softplus_excess(
    mean: Tensor, scale: Tensor, centre: Tensor, *, slopes: bool
) -> tuple[Tensor, ...]:
    r"""E f(y) - f(c) - f'(c) (E y - c) of f(y) = log(1 + exp(y)), for a normal y.

    It is the same for -y and -c, since f(y) - y/2 is even, so that c is taken to be below 0. With
    p = f'(c), which is then at most 1/2, f(c + d) - f(c) is log(1 + p (exp(d) - 1)).

    For a small scale, the trapezoidal rule in (y - mean)/scale. For a large one, E max(y, 0) in
    closed form, and the rest, log(1 + exp(-|y|)), by Gauss-Legendre in |y|.

    Returns:
        The value; with `slopes`, its derivatives by mean, scale and c.
    """
    nodes = _Nodes(*(x.to(mean) for x in _NODES))
    side = torch.where(centre > 0, -1.0, 1.0).to(mean.dtype)
    mean, centre = side * mean, side * centre
    p, gap, narrow = torch.sigmoid(centre), mean - centre, scale < _NARROW
    curvature = p * torch.sigmoid(-centre)

    d = gap.unsqueeze(-1) + torch.where(narrow, scale, 1.0).unsqueeze(-1) * nodes.z
    inside = d.clamp(max=_LARGEST)
    growth, column = torch.expm1(inside), p.unsqueeze(-1)
    ratio = torch.log1p(growth * column) + (d - inside) - column * d
    near = ratio @ nodes.of_z[:, 0]

    wide = torch.where(narrow, _NARROW, scale)
    r = mean / wide
    below, above = ((side * nodes.v - mean.unsqueeze(-1)) / wide.unsqueeze(-1) for side in (-1, 1))
    at_below, at_above = torch.exp(-0.5 * below.square()), torch.exp(-0.5 * above.square())
    # torch.special.ndtr is 1 + erf, without digits far below 0
    density, part = torch.exp(-0.5 * r.square()) / _SQRT_TAU, 0.5 * torch.erfc(-_ROOT_HALF * r)
    rest = ((at_below + at_above) @ nodes.excess) / wide
    far = wide * density + mean * part + rest - torch.log1p(torch.exp(centre)) - p * gap
    value = torch.where(narrow, near, far)
    if not slopes:
        return (value,)

    near_slopes = curvature.unsqueeze(-1) * growth / (1 + growth * column) @ nodes.of_z
    far_mean = part + ((at_below - at_above) @ nodes.slope) / wide - p
    moments = below * at_below - above * at_above
    far_scale = density + (moments @ nodes.slope) / wide
    by_mean = torch.where(narrow, near_slopes[..., 0], far_mean)
    by_scale = torch.where(narrow, near_slopes[..., 1], far_scale)
    return value, side * by_mean, by_scale, -side * curvature * gap


def kl_normal_log_odds(mean: Tensor, scale: Tensor, a: Tensor, b: Tensor) -> Tensor:
    r"""KL(Normal(mean, scale) || y), y being the log odds of a Beta(a, b).

    With f(y) = log(1 + exp(y)) and c = log(a/b), the cross entropy log B(a, b) + E [(a + b) f(y) -
    a y] is expanded around c. What is left of log B are remainders of Stirling's formula, F:

        KL = (a + b) E [f(y) - f(c) - f'(c) (y - c)] + F(a) + F(b) - F(a + b)
             - log scale - [log(2 pi) + 1] / 2
    """
    excess = mean_softplus_excess(mean, scale, torch.log(a / b))
    gammas = stirling(a) + stirling(b) - stirling(a + b)
    return (a + b) * excess + gammas - torch.log(scale) - (HALF_LOG_TAU + 0.5)
