"""Logarithms and exponentials for which torch has too few digits, or a gradient of nan.

Where a comment does not say otherwise, derivatives are written by hand for speed: autograd would
differentiate both branches of a `where` and every term of a series.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..autograd.custom import float32_form, with_partials

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def _log1mexp_slope(x: Tensor) -> Tensor:
    negative = x < 0
    safe = torch.where(negative, x, -1.0)
    return torch.where(negative, torch.exp(safe) / torch.expm1(safe), 0.0)


def _guarded_log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)), whose gradient by autograd is never nan."""
    negative = x < 0
    safe = torch.where(negative, x, -1.0)
    near = safe > -math.log(2)
    close = torch.log(-torch.expm1(torch.where(near, safe, -0.5)))
    far = torch.log1p(-torch.exp(torch.where(near, -1.0, safe)))
    return torch.where(negative, torch.where(near, close, far), -math.inf)


@with_partials(lambda x: (_log1mexp_slope(x),), plain=_guarded_log1mexp)
def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0, -inf at 0, accurate near 0 and near -inf.

    Reference: Maechler (2012), Accurately computing log(1 - exp(-|a|)).
    """
    negative = x < 0
    safe = torch.where(negative, x, -1.0)
    close, far = torch.log(-torch.expm1(safe)), torch.log1p(-torch.exp(safe))
    return torch.where(negative, torch.where(safe > -math.log(2), close, far), -math.inf)


def safe_log(mass: Tensor) -> Tensor:
    """Log of a mass that may be zero: -inf there, with a zero gradient instead of nan."""
    none = mass <= 0  # False for nan, so that a nan stays
    return torch.where(none, -math.inf, torch.log(torch.where(none, 1.0, mass)))


def logaddexp(x: Tensor, y: Tensor) -> Tensor:
    """log(exp(x) + exp(y)) for x, y < inf.

    torch.logaddexp has a gradient of nan where both are -inf, and a second derivative of nan where
    they are far apart.
    """
    x, y = torch.broadcast_tensors(x, y)
    never = torch.isneginf(x) & torch.isneginf(y)
    x, y = torch.where(never, 0.0, x), torch.where(never, 0.0, y)
    larger = x >= y
    top, drop = torch.where(larger, x, y), torch.where(larger, x - y, y - x)
    return torch.where(never, -math.inf, top - torch.nn.functional.logsigmoid(drop))


# --- u - log(1 + u) and its relatives -----------------------------------------------------------
#
# With w = u / (2 + u), log(1 + u) = 2 atanh(w) and u = 2 w / (1 - w), so the terms of first order
# cancel analytically: u - log(1 + u) = w (u - 2 (w^2/3 + w^4/5 + ...)). For w^2 < 0.008, that is
# for -0.16 < u < 0.2, this series is used; its coefficients are those of the minimax polynomial,
# with a relative error of 5e-16. Elsewhere the difference itself loses less than two digits. The
# series is finite for all u, so no branch leaks a nan into a gradient.
CLOSE = 0.008
_ATANH_SERIES = (
    0.184930103860509538,
    0.222200360341029339,
    0.285714348277490254,
    0.399999999937391203,
    0.666666666666676685,
)
LOG1PMX_NUMBERS = (CLOSE, *_ATANH_SERIES)


def atanh_series(square: Tensor, coefficients: Sequence[Any] = _ATANH_SERIES) -> Tensor:
    """2 (atanh(w)/w - 1) / w^2 as a function of w^2 < 0.008, by Horner's rule."""
    total: Any = coefficients[0]
    for c in coefficients[1:]:
        # a product plus a number takes two operations, a product plus a tensor one
        total = torch.addcmul(c, total, square) if isinstance(c, Tensor) else total * square + c
    return total


@float32_form(lambda u, ratio: (ratio - 1) - torch.log(ratio))
def minus_log1pmx(u: Tensor, ratio: Tensor) -> Tensor:
    """u - log(1 + u) >= 0; the caller passes u and 1 + u, each computed without cancellation."""
    return minus_log1pmx_of_log(u, torch.log(ratio))


@float32_form(lambda u, log_ratio: u - log_ratio)
def minus_log1pmx_of_log(u: Tensor, log_ratio: Tensor) -> Tensor:
    """u - log(1 + u), given log(1 + u), whose last digits may be wrong near u = 0."""
    return excess_over_log(u, log_ratio, u / (2.0 + u))


def excess_over_log(
    u: Tensor, log_ratio: Tensor, w: Tensor, numbers: Sequence[Any] = LOG1PMX_NUMBERS
) -> Tensor:
    """The same, given w = u / (2 + u).

    `numbers` may be tensors, which are faster where no program is recorded.
    """
    square = w * w
    close = torch.addcmul(u, atanh_series(square, numbers[1:]), square, value=-1) * w
    return torch.where(square < numbers[0], close, u - log_ratio)


@float32_form(lambda x, y: x / y - 1)
def ratio_minus_one(x: Tensor, y: Tensor) -> Tensor:
    """x/y - 1 of positive numbers, accurate for close ones; -1 where y is nan or infinite."""
    return torch.fmax((x - y) / y, torch.full_like(y, -1.0))


def squared_ratio_minus_one(s: Tensor, sigma: Tensor) -> Tensor:
    """(s/sigma)^2 - 1, accurate for close numbers; -1 where sigma is infinite."""
    return ratio_minus_one(s, sigma) * (s / sigma + 1)


@with_partials(lambda u: (-u / (1 + u),))
def log1pmx(u: Tensor) -> Tensor:
    """log(1 + u) - u without cancellation at u = 0; u > -1."""
    return -excess_over_log(u, torch.log1p(u), u / (2.0 + u))


def beyond_series(w: Tensor, square: Tensor) -> Tensor:
    """2 atanh(w) - 2 w for small w: with w = (x - y) / (x + y), log(x/y) - 2 w."""
    return w * (square * atanh_series(square))


@float32_form(lambda x, y, difference: torch.log(x / y))
def log_ratio(x: Tensor, y: Tensor, difference: Tensor) -> Tensor:
    """log(x / y) from x, y and x - y, accurate for close numbers."""
    w = difference / (x + y)
    z = w * w
    near = w * (2.0 + z * atanh_series(z))
    return torch.where(z < CLOSE, near, torch.log(x / y))


@float32_form(lambda u, ratio: torch.log(ratio))
def log1p_or_log(u: Tensor, ratio: Tensor) -> Tensor:
    """log(1 + u) from u and 1 + u: by log1p(u) for u > -1/2, else by log(1 + u)."""
    # without the lower bound the gradient of log1p at u = -1 would be nan
    close = torch.log1p(torch.clamp(u, min=-0.5))
    return torch.where(u > -0.5, close, torch.log(ratio))


# For speed: 1.9 times as fast as what autograd derives, in the pair that uses it, in float64.
@with_partials(lambda u, ratio: (1 / ratio, None))
def log1p_of(u: Tensor, ratio: Tensor) -> Tensor:
    """The same, differentiated as a function of u alone."""
    return log1p_or_log(u, ratio)


# For speed: 1.2 times as fast as what autograd derives, in the pair that uses it, in float64.
@with_partials(lambda x: (torch.expm1(x),))
def expm1mx(x: Tensor) -> Tensor:
    """exp(x) - 1 - x >= 0, without cancellation at x = 0: u - log(1 + u) for u = exp(x) - 1."""
    return excess_over_log(torch.expm1(x), x, torch.tanh(0.5 * x))


# sign(x) (1 - exp(-|x|)), with the derivative exp(-|x|) at x = 0 too, where autograd returns 0.
slope_of_expm1mx_of_distance = with_partials(lambda x: (torch.exp(-x.abs()),))(
    lambda x: -torch.sign(x) * torch.expm1(-x.abs())
)


# For digits: |x| has no second derivative at 0, this function has one.
@with_partials(lambda x: (slope_of_expm1mx_of_distance(x),))
def expm1mx_of_distance(x: Tensor) -> Tensor:
    """exp(-|x|) - 1 + |x|, which is twice differentiable at x = 0."""
    return expm1mx(-x.abs())


def _log1p_ratio_slope(u: Tensor) -> Tensor:
    near = u.abs() < 1e-4
    small, far = torch.where(near, u, 0.0), torch.where(near, 1.0, u)
    series = -0.5 + small * (2 / 3 - small * (3 / 4 - small * (4 / 5)))
    return torch.where(near, series, log1pmx(-far / (1 + far)) / far**2)


@with_partials(lambda u: (_log1p_ratio_slope(u),))
def log1p_ratio(u: Tensor) -> Tensor:
    """log(1 + u) / u, also at 0."""
    near = u.abs() < 1e-4
    small, far = torch.where(near, u, 0.0), torch.where(near, 1.0, u)
    series = 1 - small * (1 / 2 - small * (1 / 3 - small * (1 / 4 - small * (1 / 5))))
    return torch.where(near, series, torch.log1p(far) / far)
