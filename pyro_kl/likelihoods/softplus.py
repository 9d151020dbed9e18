"""E log(1 + exp(eta)) of a Normal eta, and its derivatives in the mean.

Small scales take a Taylor series in the variance, larger ones a mixture of Normals in the place
of the logistic distribution. A row's scale decides, so that a row's result does not depend on the
other rows, except for the length of the series.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor

from .differentiable import Rule

#: The largest scale of the series.
LARGEST_IN_SERIES = 0.25
#: How many terms the series has, by the largest scale. `remainder` bounds what it leaves out.
_ORDERS = ((0.02, 1), (0.1, 2), (0.17, 3), (LARGEST_IN_SERIES, 4))

# tools/logistic_mixture.py makes these numbers: the mixture of Normals with mean 0 whose smoothed
# hinge is closest to softplus. A Normal added to both only averages the error, so that the bounds
# hold for all means and scales.
_MIXTURE = (
    (0.0030187357561346465, 0.7289986126027385),
    (0.05000819581925671, 0.9397792811332565),
    (0.1956858451292161, 1.2007835645026252),
    (0.32199045069736343, 1.5389065077626436),
    (0.27738528790365236, 1.9817326615594086),
    (0.1264980337142592, 2.5558817463513286),
    (0.02434701353380775, 3.2937710007402714),
    (0.0010664374463098202, 4.280103544040314),
)
# The rows of a block: a matrix of all components and these rows stays in the cache.
_MIXTURE_ROWS = 4096
# The bytes of a block of rows: malloc asks the system for new pages for each larger tensor.
_SERIES_BYTES = 1 << 17
# The largest error of the mixture in E softplus; in its first two derivatives it is 1.2e-8.
_MIXTURE_ERROR = 3.5e-9


def _first(loc: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    """E softplus(eta) - max(loc, 0), E sigmoid(eta) and E sigmoid'(eta)."""
    smallest, largest = _range(scale)
    order = _order(largest)
    shape, loc, scale = loc.shape, loc.reshape(-1), scale.reshape(-1)
    if largest <= LARGEST_IN_SERIES:
        size = _SERIES_BYTES // loc.element_size()
        results = _in_blocks(partial(_series, order=order), size, loc, scale)
    elif smallest > LARGEST_IN_SERIES:
        results = _in_blocks(_mixture, _MIXTURE_ROWS, loc, scale)
    else:
        results = _series(loc, scale.clamp(max=LARGEST_IN_SERIES), order)
        rows = (scale > LARGEST_IN_SERIES).nonzero().squeeze(1)
        mixed = _in_blocks(_mixture, _MIXTURE_ROWS, loc[rows], scale[rows])
        for result, large in zip(results, mixed, strict=True):
            result.index_copy_(0, rows, large)
    return tuple(x.reshape(shape) for x in results)


def _in_blocks(
    function: Callable[[Tensor, Tensor], tuple[Tensor, ...]], size: int, loc: Tensor, scale: Tensor
) -> tuple[Tensor, ...]:
    """The results of a function of rows, so many rows at a time."""
    if len(loc) <= size:
        return function(loc, scale)
    blocks = map(function, loc.split(size), scale.split(size))
    return tuple(torch.cat(x) for x in zip(*blocks, strict=True))


def _higher(loc: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    """E of the second and of the third derivative of sigmoid(eta)."""
    small = scale <= LARGEST_IN_SERIES
    by_series = _higher_series(loc, torch.where(small, scale, 0.0))
    by_mixture = _higher_mixture(loc, scale)
    return tuple(torch.where(small, a, b) for a, b in zip(by_series, by_mixture, strict=True))


def _step(loc: Tensor) -> Tensor:
    """The derivative of max(loc, 0)."""
    return (loc >= 0).to(loc.dtype)


#: E softplus(eta) - max(loc, 0), E sigmoid(eta) and E sigmoid'(eta), eta ~ Normal(loc, scale^2).
#: Without max(loc, 0) the first keeps its digits where softplus is almost 0 or almost linear.
expectations = Rule(_first, _higher, _step)


def remainder(scale: Tensor) -> Tensor:
    """A bound of the error of E softplus at each scale.

    After K terms the series leaves out at most sup |f''...'| v^(K+1) / (2^(K+1) (K+1)!), where the
    derivative is of order 2 K + 2.
    """
    order = _order(_range(scale.clamp(max=LARGEST_IN_SERIES))[1])
    # The even derivatives of softplus are largest at 0.
    at_zero = sum(c * 0.25 ** (i + 1) for i, c in enumerate(_derivative(2 * order + 2)))
    bound = abs(at_zero) * (scale.square() / 2) ** (order + 1) / math.factorial(order + 1)
    return torch.where(scale <= LARGEST_IN_SERIES, bound, _MIXTURE_ERROR)


def _range(scale: Tensor) -> tuple[float, float]:
    """The smallest and the largest scale; both are nan if any is."""
    if not scale.numel():
        return 0.0, 0.0
    smallest, largest = torch.aminmax(scale)
    return smallest.item(), largest.item()


def _order(largest: float) -> int:
    return next((order for bound, order in _ORDERS if largest <= bound), _ORDERS[-1][1])


@lru_cache
def _derivative(order: int) -> tuple[int, ...]:
    """Coefficients c of a derivative of softplus of order 2 or more: sum_i c_i w^(i+1), times t if
    the order is odd, where w = sigmoid' = p (1 - p) and t = 1 - 2 p.

    From w' = w t, t' = -2 w and t^2 = 1 - 4 w.
    """
    if order == 2:
        return (1,)
    before = _derivative(order - 1)
    if order % 2:
        return tuple((i + 1) * c for i, c in enumerate(before))
    after = [0] * (len(before) + 1)
    for i, c in enumerate(before):
        after[i] += (i + 1) * c
        after[i + 1] -= (4 * i + 6) * c
    return tuple(after)


@lru_cache
def _terms(order: int, first: int, last: int) -> tuple[tuple[float, ...], ...]:
    """Of E f^(order), the coefficients of v^k / (2^k k!) f^(order + 2 k) for k = first, ..., last;
    without the factors w and t.
    """
    return tuple(
        tuple(c / (2**k * math.factorial(k)) for c in _derivative(order + 2 * k))
        for k in range(first, last + 1)
    )


def _polynomial(terms: tuple[tuple[float, ...], ...], w: Tensor, v: Tensor) -> Tensor:
    """sum_k v^k sum_i terms[k][i] w^i."""
    total = _in_w(terms[-1], w)
    for coefficients in reversed(terms[:-1]):
        total.mul_(v).add_(_in_w(coefficients, w) if len(coefficients) > 1 else coefficients[0])
    return total


def _in_w(coefficients: tuple[float, ...], w: Tensor) -> Tensor:
    if len(coefficients) == 1:
        return torch.full_like(w, coefficients[0])
    total = w * coefficients[-1]
    for c in coefficients[-2:0:-1]:
        total.add_(c).mul_(w)
    return total.add_(coefficients[0])


def _series(loc: Tensor, scale: Tensor, order: int) -> tuple[Tensor, ...]:
    """The Taylor series in v = scale^2: E f(eta) = sum_k v^k / (2^k k!) f^(2k)(loc)."""
    v = scale.square()
    p = torch.sigmoid(loc.abs().neg_())  # the smaller of both probabilities keeps its digits
    sigmoid = torch.sigmoid(loc)
    w = p.mul(p).neg_().add_(p)
    wv = w * v
    excess = torch.log1p(p.neg_()).neg_()
    excess.addcmul_(wv, _polynomial(_terms(0, 1, order), w, v))
    odd = _polynomial(_terms(1, 1, order), w, v).mul_(wv)
    slope = w * _polynomial(_terms(2, 0, order), w, v)
    odd.addcmul_(odd, sigmoid, value=-2)
    return excess, sigmoid.add_(odd), slope


def _higher_series(loc: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    order, v = _ORDERS[-1][1], scale.square()
    p = torch.sigmoid(-loc.abs())
    w = p - p * p
    third = -torch.tanh(loc / 2) * w * _polynomial(_terms(3, 0, order), w, v)
    return third, w * _polynomial(_terms(4, 0, order), w, v)


@lru_cache
def _mixture_of(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """Twice the variances as a column, half of the weights, and the factors of densities."""
    weights, scales = torch.tensor(_MIXTURE, dtype=torch.float64).T
    variances = scales.square()
    factors = torch.stack((weights, weights * variances)) / math.sqrt(math.pi)
    each = (2 * variances[:, None], weights / 2, factors)
    return tuple(x.to(device, dtype) for x in each)


def _mixture(loc: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    """The mixture of Normals in the place of the logistic distribution.

    With t^2 = scale^2 + variance of a component, and Q the tail of a Normal beyond |loc| / t,
    E softplus - max(loc, 0) is the sum over components of t^2 density - |loc| Q.
    """
    variances2, half_weights, factors = _mixture_of(loc.dtype, loc.device)
    v, size = scale.square(), loc.abs()
    inverse = torch.add(variances2, v, alpha=2).rsqrt_()  # 1 / (sqrt(2) t)
    z = size * inverse
    tail = half_weights @ torch.erfc(z)
    slope, excess = factors @ z.square_().neg_().exp_().mul_(inverse)
    excess = excess.addcmul(v, slope).addcmul_(size, tail, value=-1)
    return excess, torch.where(loc >= 0, 1 - tail, tail), slope


def _higher_mixture(loc: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    weights, scales = torch.tensor(_MIXTURE, dtype=loc.dtype, device=loc.device).T
    precision = 1 / (scale.square()[..., None] + scales.square())
    z2 = loc.square()[..., None] * precision
    density = torch.exp(-z2 / 2) * (precision / (2 * math.pi)).sqrt() * precision
    third = -loc * (density @ weights)
    return third, (density * (z2 - 1)) @ weights
