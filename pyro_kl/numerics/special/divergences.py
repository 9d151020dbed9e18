r"""Special functions that torch lacks or computes with too few digits, with gradients.

Every function here is a Bregman divergence or a piece of one: a quantity that vanishes to second
order when its two arguments meet. Variational inference lives there (the posterior of a weight
that the data say little about is close to its prior), and there the textbook difference of large
terms has no digits left.

No branch on values: `torch.func.vmap`, `torch.compile`, forward mode and double backward go
through: the derivatives are written by hand (`partials.with_partials`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..autograd.custom import has_spare_digits, with_partials

# B_2k / (2k (2k - 1)), k = 1..8: Stirling's series (Abramowitz & Stegun 1964, 6.1.40).
STIRLING = (
    1 / 12,
    -1 / 360,
    1 / 1260,
    -1 / 1680,
    1 / 1188,
    -691 / 360360,
    1 / 156,
    -3617 / 122400,
)
# From here on eight terms of Stirling's series leave a relative error below 1e-16.
_STIRLING_FROM = 12
# Below this relative difference a series, above it the textbook's difference of logarithms,
# whose result is then so large that cancellation costs at most two digits.
_NEAR = 0.1

EULER_GAMMA = 0.57721566490153286061
HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def trigamma(x: Tensor) -> Tensor:
    """The second derivative of log gamma, for positive x.

    `torch.polygamma(1, x)` has a relative error of 5e-10 in float64, and zeta(2, x) takes 150 ns.
    """
    inverse = 1 / (x + _STIRLING_FROM)
    square = inverse * inverse
    series = STIRLING[-1] * 15 * 16 * square
    for k in range(len(STIRLING) - 1, 0, -1):
        series = (series + (2 * k - 1) * 2 * k * STIRLING[k - 1]) * square
    return _sum_of_inverse_squares(x) + ((series + 0.5 * inverse) * inverse + inverse)


def rough_trigamma(x: Tensor) -> Tensor:
    """Trigamma to 7 %: enough for a width."""
    return (x + 0.5 + 0.5 / (1 + x)) / (x * x)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0, -inf at 0, with all its digits at both ends."""
    negative = x < 0
    safe = torch.where(negative, x, -1.0)
    near = safe > -math.log(2)
    close = torch.log(-torch.expm1(torch.where(near, safe, -0.5)))
    far = torch.log1p(-torch.exp(torch.where(near, -1.0, safe)))
    return torch.where(negative, torch.where(near, close, far), -math.inf)


def safe_log(mass: Tensor) -> Tensor:
    """Log of a mass that may be zero: -inf there, with a zero gradient instead of nan."""
    none = mass <= 0  # false of nan, which stays
    return torch.where(none, -math.inf, torch.log(torch.where(none, 1.0, mass)))


def logaddexp(x: Tensor, y: Tensor) -> Tensor:
    """log(exp(x) + exp(y)), both below inf.

    Torch's own has a gradient of nan where both are -inf, and a second derivative of nan where
    they are far apart.
    """
    x, y = torch.broadcast_tensors(x, y)
    never = torch.isneginf(x) & torch.isneginf(y)
    x, y = torch.where(never, 0.0, x), torch.where(never, 0.0, y)
    larger = x >= y
    top, drop = torch.where(larger, x, y), torch.where(larger, x - y, y - x)
    return torch.where(never, -math.inf, top - torch.nn.functional.logsigmoid(drop))


# --- first-order cancellation removed -----------------------------------------------------------
#
# With w = u / (2 + u), log(1 + u) = 2 atanh(w) and u = 2 w / (1 - w), so that the terms of first
# order cancel by hand: u - log(1 + u) = w (u - 2 (w^2/3 + w^4/5 + ...)). Near, that is for w^2
# below 0.008 (-0.16 < u < 0.2), the series; its coefficients make the largest error smallest,
# 5e-16 of the whole. Far, the textbook's difference, which loses less than two digits there. The
# series is finite there too and harms nobody: there is nothing to guard.
_CLOSE = 0.008
_ATANH_SERIES = (
    0.184930103860509538,
    0.222200360341029339,
    0.285714348277490254,
    0.399999999937391203,
    0.666666666666676685,
)
LOG1PMX_NUMBERS = (2.0, _CLOSE, *_ATANH_SERIES)


def _atanh_series(square: Tensor, coefficients: Sequence[Any] = _ATANH_SERIES) -> Tensor:
    """2 (atanh(w)/w - 1) / w^2 of w^2 < 0.008, by Horner's rule."""
    total: Any = coefficients[0]
    for c in coefficients[1:]:
        # a product and a number are two operations, a product and a tensor are one
        total = torch.addcmul(c, total, square) if isinstance(c, Tensor) else total * square + c
    return total


def minus_log1pmx(u: Tensor, ratio: Tensor, numbers: Sequence[Any] = LOG1PMX_NUMBERS) -> Tensor:
    """u - log(1 + u) >= 0, with u and 1 + u given by whoever knows them best.

    `numbers` may be given as tensors, which are faster where no program is recorded.
    """
    return minus_log1pmx_of_log(u, torch.log(ratio), numbers)


def _log1p_of_ratio(u: Tensor, log_ratio: Tensor) -> Tensor:
    """log(1 + u) of two numbers' ratio with an absolute error of 1e-16 u.

    Two numbers of float32 differ by at least 6e-8 of themselves, or not at all: what vanishes to
    second order then has eight digits, and needs no series.
    """
    return torch.where(u < -0.5, log_ratio, torch.log1p(u))


def minus_log1pmx_of_log(
    u: Tensor, log_ratio: Tensor, numbers: Sequence[Any] = LOG1PMX_NUMBERS, w: Tensor | None = None
) -> Tensor:
    """The same, given log(1 + u), whose last digits may be wrong near u = 0, and perhaps w."""
    if w is None and has_spare_digits(u):
        return u - _log1p_of_ratio(u, log_ratio)
    w = u / (numbers[0] + u) if w is None else w
    square = w * w
    close = torch.addcmul(u, _atanh_series(square, numbers[2:]), square, value=-1) * w
    return torch.where(square < numbers[1], close, u - log_ratio)


def ratio_minus_one(x: Tensor, y: Tensor) -> Tensor:
    """x/y - 1 of positive numbers, with all its digits; -1 where y is nan or infinite."""
    return torch.fmax((x - y) / y, torch.full_like(y, -1.0))


def squared_ratio_minus_one(s: Tensor, sigma: Tensor) -> Tensor:
    """(s/sigma)^2 - 1, with all its digits; -1 where sigma is infinite."""
    return ratio_minus_one(s, sigma) * (s / sigma + 1)


@with_partials(lambda u: (-u / (1 + u),))
def log1pmx(u: Tensor) -> Tensor:
    """log(1 + u) - u without cancellation at u = 0; u > -1."""
    return -minus_log1pmx_of_log(u, torch.log1p(u), w=u / (2.0 + u))


def _itakura_saito_of_partials(u: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    near = u.abs() < _NEAR
    safe = torch.where(near, 1.0, ratio)
    return (
        torch.where(near, u / (1 + torch.where(near, u, 0.0)), 1.0),
        torch.where(near, 0.0, -1 / safe),
    )


@with_partials(_itakura_saito_of_partials)
def itakura_saito_of(u: Tensor, ratio: Tensor) -> Tensor:
    """r - 1 - log r for r = 1 + u, with u and r given by whoever knows them best."""
    return minus_log1pmx(u, ratio)


def _itakura_saito_partials(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    u = ratio_minus_one(x, y)
    return u / x, -u / y


@with_partials(_itakura_saito_partials)
def itakura_saito(x: Tensor, y: Tensor) -> Tensor:
    """x/y - 1 - log(x/y) for positive x and y: the Itakura-Saito divergence, >= 0.

    It is the Bregman divergence of -log, and KL(Exponential(1/x) || Exponential(1/y)).
    """
    return minus_log1pmx(ratio_minus_one(x, y), x / y)


def _log_ratio(x: Tensor, y: Tensor, difference: Tensor) -> Tensor:
    """log(x / y), with all its digits also where x is close to y; x - y is given."""
    if has_spare_digits(x):
        return torch.log(x / y)
    w = difference / (x + y)
    z = w * w
    near = w * (2.0 + z * _atanh_series(z))
    return torch.where(z < _CLOSE, near, torch.log(x / y))


def log1p_or_log(u: Tensor, ratio: Tensor) -> Tensor:
    """log(1 + u) with all its digits, u and 1 + u given: near 1 by u, near 0 by 1 + u."""
    # u is bounded from below for the gradient's sake: log1p has none at -1
    close = torch.log1p(torch.clamp(u, min=-0.5))
    return torch.where(u > -0.5, close, torch.log(ratio))


@with_partials(lambda u, ratio: (1 / ratio, None))
def log1p_of(u: Tensor, ratio: Tensor) -> Tensor:
    """log(1 + u), a function of u alone, of which 1 + u is known besides."""
    return log1p_or_log(u, ratio)


@with_partials(lambda x, y: (_log_ratio(x, y, x - y), (y - x) / y))
def kl_div(x: Tensor, y: Tensor) -> Tensor:
    """x log(x/y) - x + y for positive x and y: the Bregman divergence of x log x, >= 0.

    It is KL(Poisson(x) || Poisson(y)).
    """
    return _kl_div(x, y, x - y)


def _from_zero_partials(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    some, finite = x > 0, y > 0
    by_x = torch.where(some & finite, _log_ratio(x, y, x - y), 0.0)
    return by_x, torch.where(some, torch.where(finite, (y - x) / y, 0.0), 1.0)


def guarded_kl_div(x: Tensor, y: Tensor, difference: Tensor) -> Tensor:
    """The same, x - y given, in operations of which autograd makes no nan."""
    zero = (x <= 0) | (y <= 0)  # nan is not
    some_x, some_y = torch.where(zero, 1.0, x), torch.where(zero, 1.0, y)
    value = _kl_div(some_x, some_y, torch.where(zero, 0.0, difference))
    return torch.where(zero, torch.where(x > 0, math.inf, y), value)


@with_partials(_from_zero_partials, plain=lambda x, y: guarded_kl_div(x, y, x - y))
def kl_div_from_zero(x: Tensor, y: Tensor) -> Tensor:
    """x log(x/y) - x + y for x, y >= 0: y where x = 0, +inf where only y = 0."""
    return torch.where(x <= 0, y, _kl_div(x, y, x - y))


def _kl_div(x: Tensor, y: Tensor, difference: Tensor) -> Tensor:
    """The same, x - y given: x [v - log(1 + v)] with v = (y - x)/x, free of the division by x."""
    if has_spare_digits(x):
        return x * _log1p_of_ratio(difference / y, torch.log(x / y)) - difference
    w = difference / (x + y)
    z = w * w
    near = w * (difference + x * (z * _atanh_series(z)))
    return torch.where(z < _CLOSE, near, x * torch.log(x / y) - difference)


def kl_div_of_logs(log_x: Tensor, log_y: Tensor) -> Tensor:
    """x log(x/y) - x + y from log x and log y, either of which may be -inf.

    The term of an exact sum: summed over all atoms the `- x + y` vanish, and without them the
    terms cancel to first order. x = 0 leaves y; y = 0 < x gives inf; both zero gives 0.
    """
    x_is_zero, y_is_zero = torch.isneginf(log_x), torch.isneginf(log_y)
    inside = ~(x_is_zero | y_is_zero)
    lx, ly = torch.where(inside, log_x, 0.0), torch.where(inside, log_y, 0.0)
    only_y = torch.exp(torch.where(x_is_zero & ~y_is_zero, log_y, -math.inf))
    value = torch.where(inside, _kl_div_inside(lx, ly), only_y)
    return torch.where(y_is_zero & ~x_is_zero, math.inf, value)


def _kl_div_inside_partials(lx: Tensor, ly: Tensor) -> tuple[Tensor, Tensor]:
    # y - x = -x (1 - exp(ly - lx)); exp(ly) itself where that would overflow
    x, d = torch.exp(lx), lx - ly
    near = d.abs() < 1
    gap = x * torch.expm1(-torch.where(near, d, 0.0))
    return x * d, torch.where(near, gap, torch.exp(ly) - x)


@with_partials(_kl_div_inside_partials)
def _kl_div_inside(lx: Tensor, ly: Tensor) -> Tensor:
    d = lx - ly
    w = -torch.tanh(0.5 * d)
    z, x = w * w, torch.exp(lx)
    near = x * (w * (torch.expm1(-d) - z * _atanh_series(z)))
    return torch.where(z < _CLOSE, near, x * (d - 1) + torch.exp(ly))


@with_partials(lambda d: (-torch.expm1(-d),))
def exp_excess(d: Tensor) -> Tensor:
    """exp(-d) - 1 + d >= 0, without cancellation at d = 0: u - log(1 + u) for u = exp(-d) - 1."""
    return minus_log1pmx_of_log(torch.expm1(-d), -d, w=-torch.tanh(0.5 * d))


# The derivative of exp_excess(|x|); its own is exp(-|x|), also at x = 0, where sign's is 0.
odd_saturation = with_partials(lambda x: (torch.exp(-x.abs()),))(
    lambda x: -torch.sign(x) * torch.expm1(-x.abs())
)


@with_partials(lambda x: (odd_saturation(x),))
def exp_excess_of_distance(x: Tensor) -> Tensor:
    """exp(-|x|) - 1 + |x|, which is twice differentiable at x = 0."""
    return exp_excess(x.abs())


def mean_shortfall(above: Tensor, shift: Tensor) -> Tensor:
    """E (m - x)+ from above = E (x - m)+ and shift = E x - m.

    Where `above` overflows so does the shift, and their difference is nan: 0 stands there beside
    an infinite term.
    """
    overflows = torch.isinf(above)
    return torch.where(overflows, 0.0, above - torch.where(overflows, 0.0, shift))


def bernoulli_excess(x1: Tensor, x0: Tensor, y1: Tensor, y0: Tensor) -> Tensor:
    """x1 log(x1/m1) + x0 log(x0/m0), m = y (x1 + x0)/(y1 + y0): two positive counts against two.

    It is (x1 + x0) KL(Bernoulli(x1 / (x1 + x0)) || Bernoulli(y1 / (y1 + y0))). The deviation
    from proportionality, x1 y0 - x0 y1, is taken from the differences x - y.
    """
    over = ((x1 - y1) * y0 - (x0 - y0) * y1) / (y1 + y0)
    scale = (x1 + x0) / (y1 + y0)
    return kl_div_of_difference(x1, y1 * scale, over) + kl_div_of_difference(x0, y0 * scale, -over)


def _of_difference_partials(x: Tensor, m: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As a function of m and d alone, x being m + d."""
    log_ratio = _log_ratio(x, m, d)
    return torch.zeros_like(x), log_ratio - d / m, log_ratio


@with_partials(_of_difference_partials)
def kl_div_of_difference(x: Tensor, m: Tensor, difference: Tensor) -> Tensor:
    """Excess x log(x/m) - x + m with x - m given."""
    return _kl_div(x, m, difference)


# --- log gamma ----------------------------------------------------------------------------------
#
# Throughout, F(x) = lgamma(x) - x log x + x: what Stirling's leading term leaves of log gamma.
# Above 12 it is -log(x)/2 + log(2 pi)/2 + sum_k c_k x^(1 - 2k). Its Bregman divergence is in
# log_gamma.py.


def _stirling(x: Tensor) -> Tensor:
    """F(x)."""
    large = x >= _STIRLING_FROM
    big, little = torch.where(large, x, 1.0 * _STIRLING_FROM), torch.where(large, 1.0, x)
    inverse = 1 / big
    square = inverse * inverse
    series = torch.full_like(x, STIRLING[-1])
    for c in reversed(STIRLING[:-1]):
        series = series * square + c
    above = series * inverse - 0.5 * torch.log(big) + HALF_LOG_TAU
    below = torch.lgamma(little) - little * torch.log(little) + little
    return torch.where(large, above, below)


def _stirling_slope(x: Tensor) -> Tensor:
    """F'(x) = digamma(x) - log x."""
    large = x >= _STIRLING_FROM
    big, little = torch.where(large, x, 1.0 * _STIRLING_FROM), torch.where(large, 1.0, x)
    inverse = 1 / big
    square = inverse * inverse
    series = torch.full_like(x, -15 * STIRLING[-1])
    for k in range(len(STIRLING) - 1, 0, -1):
        series = series * square - (2 * k - 1) * STIRLING[k - 1]
    above = series * square - 0.5 * inverse
    return torch.where(large, above, torch.digamma(little) - torch.log(little))


def _stirling_curvature(x: Tensor) -> Tensor:
    """F''(x) = trigamma(x) - 1/x."""
    small = x < _STIRLING_FROM
    up = x + _shift(small, x)
    inverse = 1 / up
    square = inverse * inverse
    series = torch.full_like(x, 15 * 16 * STIRLING[-1])
    for k in range(len(STIRLING) - 1, 0, -1):
        series = series * square + (2 * k - 1) * 2 * k * STIRLING[k - 1]
    series = (series * inverse + 0.5) * square
    added = _sum_of_inverse_squares(torch.where(small, x, 1.0)) + inverse - 1 / x
    return series + torch.where(small, added, 0.0)


def _shift(small: Tensor, like: Tensor) -> Tensor:
    return torch.where(small, 1.0 * _STIRLING_FROM, 0.0).to(like.dtype)


# The factors x + j and x + 11 - j have the product z + j (11 - j), z = x (x + 11), so that the
# twelve steps are six. (2 x + 11)^2 is 4 (z + k) + 121 - 4 k.
_PAIRED = tuple(j * (_STIRLING_FROM - 1 - j) for j in range(_STIRLING_FROM // 2))
_LAST = _STIRLING_FROM - 1


def _paired(x: Tensor) -> list[Tensor]:
    """1 / ((x + j) (x + 11 - j)), j = 0..5."""
    z = x * (x + _LAST)
    return [1 / (z + k) for k in _PAIRED]


def _sum_of_inverse_squares(x: Tensor) -> Tensor:
    """The sum of 1 / (x + j)^2, j = 0..11: each pair is r (2 + (121 - 4 k) r), r its inverse."""
    total = torch.zeros_like(x)
    for r, k in zip(_paired(x), _PAIRED, strict=True):
        total = total + r * (r * (_LAST**2 - 4 * k) + 2)
    return total
