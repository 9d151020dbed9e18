"""E log Phi(eta) of a Normal eta, and its derivatives in the mean, where Phi is the Normal CDF.

Where all scales are small, it is a Taylor series in the variance. Otherwise the rule depends on
the row's scale: Gauss and Hermite's with few nodes up to 0.25, the trapezoidal rule beyond.
log Phi is analytic within 2.8 of the real line (the zeros of Phi that are closest to it are
1.92 +- 2.82 i): the error of the trapezoidal rule decreases like exp(-17.7 / (step scale)). All
is computed in float64, because x + phi(x) / Phi(x) loses x^2 units of its last digit where x is
far below 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from .differentiable import Rule

# The largest scale of the series, where four terms leave out 3e-10, and the smallest mean: each
# coefficient loses |x| more units of the last digit where x is far below 0.
_LARGEST_IN_SERIES, _SMALLEST_MEAN = 0.12, -50.0
# The number of nodes of Gauss and Hermite's rule, by the largest scale.
_GAUSS = {0.0: 1, 0.05: 3, 0.12: 4, 0.25: 6}
# The scales at which the step of the trapezoidal rule changes. Beyond the last one it stays.
_TRAPEZOIDAL = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_STEP_TIMES_SCALE, _LARGEST_STEP = 0.6, 0.9
# Rows beyond the last scale keep its nodes.
_BOUNDS = (*_GAUSS, *_TRAPEZOIDAL[:-1], math.inf)
# A Normal has 6e-14 of its mass beyond.
_END = 7.5
# How many numbers a block has: they stay in the cache.
_BLOCK = 1 << 15
#: The largest error of E log Phi relative to 1 + its size, up to the last scale and beyond.
ERRORS = (1e-9, 1e-6)


def remainder(loc: Tensor, scale: Tensor) -> Tensor:
    """A bound of the error of E log Phi, measured against 40 digits; 0 where the scale is 0."""
    relative = torch.where(scale <= _TRAPEZOIDAL[-1], *ERRORS)
    return torch.where(scale > 0, relative * (1 + expectations(loc, scale)[0].abs()), 0.0)


def _inverse_mills_ratio(x: Tensor) -> tuple[Tensor, Tensor]:
    """phi(x) / Phi(x), and erfcx(-x / sqrt(2)), from which it is."""
    scaled = torch.special.erfcx(x * -math.sqrt(0.5))
    return math.sqrt(2 / math.pi) / scaled, scaled


def _value_and_slopes(x: Tensor) -> tuple[Tensor, ...]:
    ratio, scaled = _inverse_mills_ratio(x)
    above = torch.log1p(torch.erfc(x * math.sqrt(0.5)) / -2)
    value = torch.where(x < -1, torch.log(scaled / 2) - x.square() / 2, above)
    return value, ratio, -ratio * (x + ratio)


def _higher(x: Tensor) -> tuple[Tensor, ...]:
    ratio = _inverse_mills_ratio(x)[0]
    total = x + ratio
    curvature = ratio * total
    third = ratio * (total.square() - 1 + curvature)
    return third, ratio * (2 * total * (1 - curvature) - third) - third * total


def _series(x: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    """E f(eta) and of its derivatives by four terms: E (eta - x)^2k = (2k - 1)!! scale^2k.

    f' has the Taylor coefficients t of ratio, from ratio' = -ratio (x + ratio).
    """
    value, ratio, second = _value_and_slopes(x)
    slope, t = ratio.clone(), [ratio]
    for j in range(7):
        product = x * t[j]
        if j:
            product.add_(t[j - 1])
        for i in range(j + 1):
            product.addcmul_(t[i], t[j - i])
        t.append(product.mul_(-1 / (j + 1)))
    v = scale.square()
    power, moment = v.clone(), 1
    for k in (1, 2, 3):
        moment *= 2 * k - 1
        value.addcmul_(power, t[2 * k - 1], value=moment / (2 * k))
        slope.addcmul_(power, t[2 * k], value=moment)
        second.addcmul_(power, t[2 * k + 1], value=moment * (2 * k + 1))
        power.mul_(v)
    return value, slope, second


@lru_cache
def _rule(bound: float) -> tuple[Tensor, Tensor]:
    """Nodes and weights for a standard Normal."""
    if bound in _GAUSS:
        gauss = np.polynomial.hermite_e.hermegauss(_GAUSS[bound])
        z, weights = (torch.from_numpy(x) for x in gauss)
        return z, weights / weights.sum()
    step = min(_LARGEST_STEP, _STEP_TIMES_SCALE / min(bound, _TRAPEZOIDAL[-1]))
    one_side = math.ceil(_END / step)
    z = torch.arange(-one_side, one_side + 1, dtype=torch.float64) * step
    weights = torch.exp(-z.square() / 2)
    return z, weights / weights.sum()


def _mean(
    function: Callable[[Tensor], tuple[Tensor, ...]], loc: Tensor, scale: Tensor
) -> tuple[Tensor, ...]:
    """The expectations of some functions; rows of similar scale are computed together."""
    m, s = loc.to(torch.float64).reshape(-1), scale.to(torch.float64).reshape(-1)
    group = torch.bucketize(
        s.contiguous(), torch.tensor(_BOUNDS, dtype=torch.float64, device=s.device)
    )
    results = tuple(torch.empty_like(m) for _ in function(m[:0]))
    for i in group.unique().tolist():
        z, weights = (x.to(m.device) for x in _rule(_BOUNDS[min(i, len(_BOUNDS) - 1)]))
        for rows in (group == i).nonzero().squeeze(1).split(max(1, _BLOCK // len(z))):
            parts = [weights @ x for x in function(torch.addcmul(m[rows], s[rows], z[:, None]))]
            for result, part in zip(results, parts, strict=True):
                result[rows] = part
    return tuple(x.to(loc.dtype).reshape(loc.shape) for x in results)


def _first(loc: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    """E f(eta), E f'(eta) and E f''(eta) of f = log Phi."""
    if scale.numel() and (scale.max() > _LARGEST_IN_SERIES or loc.min() < _SMALLEST_MEAN):
        return _mean(_value_and_slopes, loc, scale)
    series = _series(loc.to(torch.float64), scale.to(torch.float64))
    return tuple(x.to(loc.dtype) for x in series)


#: E f(eta), E f'(eta) and E f''(eta) of f = log Phi, eta ~ Normal(loc, scale^2).
expectations = Rule(_first, partial(_mean, _higher))
