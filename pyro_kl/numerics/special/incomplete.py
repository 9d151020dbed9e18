r"""E (x - m)+ where it is an incomplete gamma or beta function, of which torch has no derivative.

The integral itself, positive term by positive term, by Gauss-Legendre's rule: the nodes are
constants, so that derivatives by all parameters, of any order, are sums over the same nodes. What
depends on the end of the integral is added to second order, with value 0 (`_moved_end`).

40 nodes on each side of the peak leave less than 1e-13: there the integrands have the shape of
exp(-A (exp(d) - 1 - d)), which lies between half a Gaussian over 9 standard deviations and an
exponential's tail over 40 lengths.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .gamma import EULER_GAMMA, stirling
from .logarithms import expm1mx

_X, _W = np.polynomial.legendre.leggauss(40)
_NODES = tuple(float(x) for x in 0.5 + 0.5 * _X)
_WEIGHTS = tuple(float(w) for w in 0.5 * _W)
#: Nats below its top at which an integrand has nothing left.
_NOTHING = 40.0
_FAR = 50.0


def _rule(like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights on (0, 1)."""
    nodes = torch.tensor(_NODES, dtype=like.dtype, device=like.device)
    return nodes, torch.tensor(_WEIGHTS, dtype=like.dtype, device=like.device)


def _log_gamma_density(d: Tensor, shape: Tensor) -> Tensor:
    """Density of d = log(z / shape), z a Gamma(shape, 1)."""
    # beyond _FAR there is nothing left, and its derivative would be inf times 0
    d = torch.clamp(d, max=_FAR)
    return torch.exp(-shape * expm1mx(d) - stirling(shape))


def _nodes_and_weights(start: Tensor, peak: Tensor, sharpness: Tensor) -> tuple[Tensor, Tensor]:
    """For integrals from `start` of what looks like exp(-A (exp(d - peak) - 1 - (d - peak))).

    A is the sharpness. The ends, where c = 40 / A nats are gone, solve exp(-x) + x = 1 + c and
    exp(x) - x = exp(b) - b + c, b the larger of 0 and the start, by steps that come from outside.
    """
    start, peak, sharpness = start.detach(), peak.detach(), sharpness.detach()
    c = _NOTHING / sharpness
    width = torch.sqrt(2 * c)
    length = width + c
    for _ in range(4):
        length = c - torch.expm1(-length)
    low = torch.clamp(torch.maximum(start - peak, -length), max=_FAR)
    middle = torch.relu(low)
    high = middle + width
    for _ in range(4):
        high = torch.log(torch.exp(middle) + (high - middle) + c)
    t, w = _rule(start)
    sides = [(low, middle - low), (middle, high - middle)]
    d = [(begin + peak).unsqueeze(-1) + size.unsqueeze(-1) * t for begin, size in sides]
    return torch.cat(d, -1), torch.cat([size.unsqueeze(-1) * w for _, size in sides], -1)


def power_of_gamma_mean_excess(
    m: Tensor, mean: Tensor, shape: Tensor, middle: Tensor, power: Tensor
) -> Tensor:
    """E (x - m)+ for x = middle (z / shape)^(1 / power), z a Gamma(shape, 1), and E x given.

    With z = shape exp(d) it is the integral of (x - m) times the density of d, from the d0 where
    x is m; for m <= 0 it is E x - m.

    References: DLMF 8.2: the incomplete gamma function.
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
    """What the integral of an integrand that rises from 0 gains if its lower end moves: 0 now.

    The nodes are constants, and this carries the second derivative by the end.
    """
    return 0.5 * (start - start.detach()).square() * slope


def gumbel_mean_excess(m: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """E (x - m)+ for a Gumbel: x = loc - scale d, exp(d) an Exponential(1).

    E (d0 - d)+ = E (d - d0)+ + d0 - E d, with d0 = (loc - m) / scale; an exponential integral.

    References: DLMF 6.2.
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

    References: DLMF 8.17.
    """
    z, df, top = torch.broadcast_tensors(z, df, top)
    root = torch.sqrt(df)
    tail = torch.exp(0.5 * (1 - df) * torch.log1p((z / root).square()))
    furthest = (torch.sqrt(2 * _NOTHING / df) + _NOTHING / df).detach()
    y = torch.maximum(torch.minimum(torch.asinh(z / root), furthest), -furthest)
    nodes, weights = _rule(z)
    log_cosh = 0.5 * torch.log1p(torch.sinh(y.unsqueeze(-1) * nodes).square())
    centre = y * (torch.exp(-df.unsqueeze(-1) * log_cosh) * weights).sum(-1)
    return top * df * tail / (df - 1) + z * (top * root * centre - 0.5)


def mean_shortfall(above: Tensor, shift: Tensor) -> Tensor:
    """E (m - x)+ from above = E (x - m)+ and shift = E x - m.

    Where `above` overflows so does the shift, and their difference is nan: 0 stands there beside
    an infinite term.
    """
    overflows = torch.isinf(above)
    return torch.where(overflows, 0.0, above - torch.where(overflows, 0.0, shift))


#: From here on the asymptotic series of the slope is exact to 1e-12.
_SERIES_FROM = 50.0


def log_erfcx(x: Tensor) -> Tensor:
    """Log of exp(x^2) erfc(x); torch's erfcx has no rule for vmap and one derivative only."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return torch.log(torch.special.erfcx(x))
    return _LogErfcx.apply(x)


def _log_erfcx_slope(x: Tensor) -> Tensor:
    """d/dx: the function itself again, so that it can be differentiated as often as one likes."""
    far = x > _SERIES_FROM
    near = torch.where(far, 1.0, x)
    r = 1 / torch.where(far, x, _SERIES_FROM) ** 2
    series = -(1 - r * (1 - r * (2.5 - r * 9.25))) / torch.where(far, x, _SERIES_FROM)
    exact = 2 * near - 2 / math.sqrt(math.pi) * torch.exp(-log_erfcx(near))
    return torch.where(far, series, exact)


class _LogErfcx(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.log(torch.special.erfcx(x))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * _log_erfcx_slope(*ctx.saved_tensors)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent * _log_erfcx_slope(*ctx.saved_tensors)

    @staticmethod
    def vmap(_: Any, in_dims: tuple[int | None], x: Tensor) -> tuple[Tensor, int | None]:
        return log_erfcx(x), in_dims[0]
