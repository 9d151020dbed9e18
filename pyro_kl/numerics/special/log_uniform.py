"""Expectations of logarithms of a uniform variable, accurate for narrow intervals."""

from __future__ import annotations

import torch
from torch import Tensor

from .series import horner, mean_over_segment

# A uniform x is c (1 + r u) with the centre c, r = (high - low) / (2 c) and u uniform on (-1, 1).
# E log(1 + r u) is of second order in r: for small r it is a power series.

_NARROW = 0.4
_TERMS = 20  # 0.4^(2 * 20) = 1e-16
_MEAN = tuple(-1 / (2 * n * (2 * n + 1)) for n in range(1, _TERMS + 1))
# E log(1 + r u)^2 = sum 2 H(2n - 1) / (2n (2n + 1)) r^2n, with the harmonic numbers H
_SQUARE = tuple(
    sum(1 / k for k in range(1, 2 * n)) / (n * (2 * n + 1)) for n in range(1, _TERMS + 1)
)


def _log_where_positive(x: Tensor) -> Tensor:
    """Log x, or 0 at x = 0: x log x is then 0 there, with a finite gradient."""
    return torch.log(torch.where(x > 0, x, 1.0))


def mean_log_over_r(r: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """E log(1 + r u) / r, given 1 - r and 1 + r as `low` and `high`; either may be 0."""
    narrow = r.abs() < _NARROW
    small, wide = torch.where(narrow, r, 0.0), torch.where(narrow, 1.0, r)
    x, y = torch.where(narrow, 0.0, low), torch.where(narrow, 0.0, high)
    change = y * _log_where_positive(y) - x * _log_where_positive(x)
    direct = (0.5 * change / wide - 1) / wide
    return torch.where(narrow, small * horner(_MEAN, small * small), direct)


def variance_log_of(r: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Var log(1 + r u), arguments as above."""
    narrow = r.abs() < _NARROW
    small, wide = torch.where(narrow, r, 0.0), torch.where(narrow, 1.0, r)
    x, y = torch.where(narrow, 0.0, low), torch.where(narrow, 0.0, high)
    log_x, log_y = _log_where_positive(x), _log_where_positive(y)
    square = small * small
    first = square * horner(_MEAN, square)
    near = square * horner(_SQUARE, square) - first * first
    # Var log of a uniform on (x, y): 1 - x y (log(y/x) / (y - x))^2
    slope = (log_y - log_x) / (2 * wide)
    return torch.where(narrow, near, 1 - x * y * slope * slope)


def log_of_ratio(low: Tensor, high: Tensor) -> Tensor:
    """log(high / low) from the difference where they are close; log high where low is 0."""
    u = (high - low) / high
    near = u < 0.5
    close = -torch.log1p(-torch.where(near, u, 0.0))
    return torch.where(near, close, torch.log(high) - _log_where_positive(low))


def _log1p_square(x: Tensor) -> Tensor:
    """log(1 + x^2), which does not overflow."""
    near = x.abs() < 1
    close = torch.log1p(torch.where(near, x, 0.0) ** 2)
    far = 2 * torch.log(torch.hypot(torch.where(near, 1.0, x), torch.ones_like(x)))
    return torch.where(near, close, far)


def mean_log1p_square(low: Tensor, width: Tensor) -> Tensor:
    """E log(1 + x^2) for x uniform from low to low + width."""
    # The antiderivative is x log(1 + x^2) - 2x + 2 atan(x). Its difference cancels where the ends
    # are close, and there the integrand is close to a polynomial.
    high = low + width
    near = width < torch.hypot(torch.ones_like(low), 0.5 * low + 0.5 * high)
    close = mean_over_segment(_log1p_square, low, torch.where(near, width, 0.0))
    a, b = torch.where(near, 0.0, low), torch.where(near, 1.0, high)
    at_a, at_b = (x * (_log1p_square(x) - 2) + 2 * torch.atan(x) for x in (a, b))
    return torch.where(near, close, (at_b - at_a) / (b - a))
