r"""Expectations E (x - m)+ that are incomplete gamma or beta functions, and log erfcx.

Torch has no derivatives of these functions. Here each is the integral itself, of a positive
integrand, by the Gauss-Legendre rule. The nodes are constants, so derivatives of any order by all
parameters are sums over the same nodes. Where the lower end of the integral depends on a
parameter, a term with the value 0 adds the second derivative (`_moved_end`).

40 nodes on each side of the peak leave an error below 1e-13: the integrands have the shape of
exp(-A (exp(d) - 1 - d)), which lies between half a Gaussian over 9 standard deviations (A large)
and the tail of an exponential over 40 of its lengths (A small).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..autograd.custom import with_partials
from .gamma import EULER_GAMMA, stirling
from .logarithms import expm1mx
from .series import gauss_legendre, on_unit_interval

_RULE = gauss_legendre(40)
#: Nats below its maximum at which an integrand is negligible.
_NEGLIGIBLE = 40.0
_FAR = 50.0


def _log_gamma_density(d: Tensor, shape: Tensor) -> Tensor:
    """Density of d = log(z / shape), z a Gamma(shape, 1)."""
    # beyond _FAR the density is 0, but its derivative would be inf times 0
    d = torch.clamp(d, max=_FAR)
    return torch.exp(-shape * expm1mx(d) - stirling(shape))


def _nodes_and_weights(start: Tensor, peak: Tensor, sharpness: Tensor) -> tuple[Tensor, Tensor]:
    """For integrals from `start` of what looks like exp(-A (exp(d - peak) - 1 - (d - peak))).

    A is the sharpness. At both ends the integrand has fallen by 40 nats, that is by c = 40 / A in
    exp(d) - 1 - d: they solve exp(-x) + x = 1 + c and exp(x) - x = exp(b) - b + c, where b is the
    larger of 0 and the start. The fixed-point iterations start outside of the solution.
    """
    start, peak, sharpness = start.detach(), peak.detach(), sharpness.detach()
    c = _NEGLIGIBLE / sharpness
    width = torch.sqrt(2 * c)
    length = width + c
    for _ in range(4):
        length = c - torch.expm1(-length)
    low = torch.clamp(torch.maximum(start - peak, -length), max=_FAR)
    middle = torch.relu(low)
    high = middle + width
    for _ in range(4):
        high = torch.log(torch.exp(middle) + (high - middle) + c)
    t, w = on_unit_interval(_RULE, start)
    sides = [(low, middle - low), (middle, high - middle)]
    d = [(begin + peak).unsqueeze(-1) + size.unsqueeze(-1) * t for begin, size in sides]
    return torch.cat(d, -1), torch.cat([size.unsqueeze(-1) * w for _, size in sides], -1)


def power_of_gamma_mean_excess(
    m: Tensor, mean: Tensor, shape: Tensor, middle: Tensor, power: Tensor
) -> Tensor:
    """E (x - m)+ for x = middle (z / shape)^(1 / power), z a Gamma(shape, 1); `mean` is E x.

    With z = shape exp(d) it is the integral of (x - m) times the density of d, from the d0 where
    x is m. For m <= 0 it is E x - m.

    Reference: DLMF 8.2, the incomplete gamma function.
    """
    m, mean, shape, middle, power = torch.broadcast_tensors(m, mean, shape, middle, power)
    positive = m > 0
    safe = torch.where(positive, m, middle)
    start = power * torch.log(safe / middle)
    sharpness = shape + 1 / power
    d, weights = _nodes_and_weights(start, torch.log(sharpness / shape), sharpness)
    a, s, k = shape.unsqueeze(-1), safe.unsqueeze(-1), power.unsqueeze(-1)
    log_above = (d - start.unsqueeze(-1)) / k
    near = log_above < 1
    far = middle.unsqueeze(-1) * torch.exp(torch.where(near, 0.0, d / k)) - s
    above = torch.where(near, s * torch.expm1(torch.where(near, log_above, 0.0)), far)
    excess = (above * _log_gamma_density(d, a) * weights).sum(-1)
    excess = excess + _moved_end(start, safe / power * _log_gamma_density(start, shape))
    return torch.where(positive, excess, mean - m)


def _moved_end(start: Tensor, slope: Tensor) -> Tensor:
    """0, with the second derivative of an integral by its lower end, where the integrand is 0.

    `slope` is the integrand's slope there. The nodes themselves are constants.
    """
    return 0.5 * (start - start.detach()).square() * slope


def gumbel_mean_excess(m: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """E (x - m)+ for a Gumbel: x = loc - scale d, exp(d) an Exponential(1).

    E (d0 - d)+ = E (d - d0)+ + d0 - E d, with d0 = (loc - m) / scale.

    Reference: DLMF 6.2, the exponential integral.
    """
    start = (loc - m) / scale
    one = torch.ones_like(start)
    d, weights = _nodes_and_weights(start, torch.zeros_like(one), one)
    density = _log_gamma_density(d, one.unsqueeze(-1))
    excess = ((d - start.unsqueeze(-1)) * density * weights).sum(-1)
    excess = excess + _moved_end(start, _log_gamma_density(start, one))
    return scale * (excess + start + EULER_GAMMA)


def student_mean_excess(z: Tensor, df: Tensor, top: Tensor) -> Tensor:
    """E (t - z)+ for Student's t with df > 1, whose density at 0 is `top`.

    With t = sqrt(df) sinh(y) the density of y is proportional to cosh(y)^-df, and

        E (t - z)+ = top df cosh(y)^(1 - df) / (df - 1) - z/2 + z (F(z) - 1/2)

    F(z) - 1/2, an incomplete beta function, is the integral over y from 0.

    Reference: DLMF 8.17.
    """
    z, df, top = torch.broadcast_tensors(z, df, top)
    root = torch.sqrt(df)
    tail = torch.exp(0.5 * (1 - df) * torch.log1p((z / root).square()))
    furthest = (torch.sqrt(2 * _NEGLIGIBLE / df) + _NEGLIGIBLE / df).detach()
    y = torch.maximum(torch.minimum(torch.asinh(z / root), furthest), -furthest)
    nodes, weights = on_unit_interval(_RULE, z)
    log_cosh = 0.5 * torch.log1p(torch.sinh(y.unsqueeze(-1) * nodes).square())
    centre = y * (torch.exp(-df.unsqueeze(-1) * log_cosh) * weights).sum(-1)
    return top * df * tail / (df - 1) + z * (top * root * centre - 0.5)


def mean_shortfall(above: Tensor, shift: Tensor) -> Tensor:
    """E (m - x)+ from above = E (x - m)+ and shift = E x - m.

    Where `above` is inf the shift is inf too, and their difference would be nan. The result is 0
    there: the sum that it is a term of is infinite anyway.
    """
    overflows = torch.isinf(above)
    return torch.where(overflows, 0.0, above - torch.where(overflows, 0.0, shift))


#: From here on the asymptotic series of the slope is exact to 1e-12.
_SERIES_FROM = 50.0


def _log_erfcx_slope(x: Tensor) -> Tensor:
    """Written by hand for its digits: 2 x - 2 / (sqrt(pi) erfcx(x)) cancels for large x.

    It calls `log_erfcx` again, so it can be differentiated any number of times.
    """
    far = x > _SERIES_FROM
    near, big = torch.where(far, 1.0, x), torch.where(far, x, _SERIES_FROM)
    r = 1 / (big * big)
    series = -(1 - r * (1 - r * (2.5 - r * 9.25))) / big
    exact = 2 * near - 2 / math.sqrt(math.pi) * torch.exp(-log_erfcx(near))
    return torch.where(far, series, exact)


@with_partials(lambda x: (_log_erfcx_slope(x),))
def log_erfcx(x: Tensor) -> Tensor:
    """Log of the scaled complementary error function exp(x^2) erfc(x)."""
    return torch.log(torch.special.erfcx(x))
