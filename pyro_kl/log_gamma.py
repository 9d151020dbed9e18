r"""Bregman divergences of log gamma: what two gammas, betas or Dirichlets lose to each other.

Throughout, F(x) = lgamma(x) - x log x + x: what Stirling's leading term leaves of log gamma. Its
divergence D(x, y) = F(x) - F(y) - (x - y) F'(y) is KL(Gamma(y, y) || Gamma(x, x)), and it must
keep its digits from x = 1e-7 to 1e8, for x next to y and far from it. One formula does all:
lgamma(x) = lgamma(x + m) - sum_{j < m} log(x + j), and beyond m Binet's function
J(z) = lgamma(z) - (z - 1/2) log z + z - log(2 pi) / 2, whose integral over t (Whittaker & Watson
1927, 12.32) is summed here at four points,

    J(z) ~ sum_i w_i z / (z^2 + s_i),    z >= m.

With E(u) = u - log(1 + u), d = x - y, X = x + m and Y = y + m,

    D(x, y) = sum_{j < m} E(d / (y + j)) + (1/2 - m) E(d / Y) - x E(-m d / (x Y)) + D_J(X, Y).

The terms of first order have cancelled by hand, and all the E are evaluated as one tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .special import excess, generalised_kl, with_partials

__all__ = ["bregman_lgamma", "bregman_stirling", "stirling_rows"]

_STEPS = 4
# Fitted so that the second derivative of J is off by at most 3.5e-14 of that of F at z - m, for
# all z >= m: by weighted least squares, the weights moved to where the error was largest.
_WEIGHTS = (
    0.07986013112023077125,
    0.0034293947952244188108,
    0.000043740915692774827858,
    6.650172532788077832e-8,
)
_SQUARES = (
    0.015671704010640845114,
    0.42005130350571272648,
    1.9499852677224544984,
    6.2783576306511405981,
)


class _Constants(NamedTuple):
    """The numbers above as tensors: an operation on a Python number makes one first."""

    steps: Tensor  # 0..m, one below the other
    of_excess: Tensor  # weights of the E
    of_inverse: Tensor  # of 1 / (x + j)
    weights: Tensor
    squares: Tensor
    weighted_squares: Tensor
    one: Tensor
    two: Tensor
    minus_three: Tensor
    minus_m: Tensor
    m: Tensor


def _make_constants(device: torch.device, dtype: torch.dtype) -> _Constants:
    def tensor(values: Sequence[float] | float) -> Tensor:
        return torch.tensor(values, device=device, dtype=dtype)

    ones, m = [1.0] * _STEPS, float(_STEPS)
    products = [w * s for w, s in zip(_WEIGHTS, _SQUARES, strict=True)]
    return _Constants(
        steps=tensor([float(j) for j in range(_STEPS + 1)]).unsqueeze(-1),
        of_excess=tensor([*ones, 0.5 - m]),
        of_inverse=tensor([*ones, 0.5]),
        weights=tensor(_WEIGHTS),
        squares=tensor(_SQUARES).view(-1, 1, 1),
        weighted_squares=tensor(products),
        one=tensor(1.0),
        two=tensor(2.0),
        minus_three=tensor(-3.0),
        minus_m=tensor(-m),
        m=tensor(m),
    )  # fmt: skip


@lru_cache
def _kept_constants(device: torch.device, dtype: torch.dtype) -> _Constants:
    # what is made under torch.inference_mode must serve outside of it
    with torch.inference_mode(mode=False):
        return _make_constants(device, dtype)


def _constants(like: Tensor) -> _Constants:
    # torch.compile makes constants of its own, and warns of a cache
    make = _make_constants if torch.compiler.is_compiling() else _kept_constants
    return make(like.device, like.dtype)


class Rows(NamedTuple):
    """The divergence of two flat tensors, its slopes if asked for, and E of what was handed in."""

    value: Tensor
    by_x: Tensor
    by_y: Tensor
    excess: Tensor


def stirling_rows(
    x: Tensor,
    y: Tensor,
    more: Sequence[tuple[Tensor, Tensor]] = (),
    *,
    slopes: bool = True,
) -> Rows:
    """D(x, y) with both its slopes, F'(x) - F'(y) and (y - x) F''(y), and E of some more.

    Args:
        x: positive, of one dimension, n numbers.
        y: the same.
        more: pairs u and 1 + u, of n numbers each, whose E(u) is wanted too.
        slopes: False leaves them out: `by_x` and `by_y` are then `value`.

    Returns:
        Three tensors of n numbers, and a matrix of a row for each of `more`.
    """
    k = _constants(x)
    d = x - y
    at_x, at_y = x + k.steps, y + k.steps
    inverse_y = at_y.reciprocal()
    u, ratio = d * inverse_y, at_x * inverse_y
    v, a, b = u[-1], at_x[-1].reciprocal(), inverse_y[-1]
    e = v * k.minus_m / x
    rows = [u, e.unsqueeze(0), *(extra.unsqueeze(0) for extra, _ in more)]
    e_ratio = (ratio[-1] / ratio[0]).unsqueeze(0)
    ratios = [ratio, e_ratio, *(extra.unsqueeze(0) for _, extra in more)]
    found = excess(torch.cat(rows), torch.cat(ratios))
    value = torch.mv(found[: _STEPS + 1].t(), k.of_excess)
    value = torch.addcmul(value, x, found[_STEPS + 1], value=-1)
    # D_J = v^2 a [sum w r_x r_y - 2 b (a + b) sum w s r_x r_y^2], r = 1 / (1 + s / z^2)
    ends = torch.stack((a, b))
    r_x, r_y = torch.addcmul(k.one, k.squares, ends * ends).reciprocal().unbind(1)
    both, a_and_b, va = r_x * r_y, a + b, v * a
    series = torch.mv(both.t(), k.weights)
    second = torch.mv((both * r_y).t(), k.weighted_squares)
    series = torch.addcmul(series, a_and_b * b, second, value=-2)
    value = torch.addcmul(value, series, va * v)
    more_found = found[_STEPS + 2 :]
    if not slopes:
        return Rows(value, value, value, more_found)
    # J'(X) - J'(Y) = d a b (a + b) sum w r_x r_y (2 r_x + 2 r_y - 3), and of X = Y for y's slope
    j_x = torch.mv((both * torch.addcmul(k.minus_three, r_x + r_y, k.two)).t(), k.weights)
    j_y = torch.addcmul(k.minus_three, r_y + r_y, k.two)
    j_y = torch.mv((r_y * r_y * j_y).t(), k.weights)
    by_x = torch.mv((u / at_x).t(), k.of_inverse) + torch.log1p(e)
    by_x = torch.addcmul(by_x, va * a_and_b, j_x)
    by_y = torch.addcmul(torch.mv((u * inverse_y).t(), k.of_inverse), v * (b * b), j_y, value=2)
    return Rows(value, by_x, torch.addcmul(u[0] * (b * k.m), by_y, k.one, value=-1), more_found)


def _both_slopes(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    rows = stirling_rows(x.reshape(-1), y.reshape(-1))
    return rows.by_x.view(x.shape), rows.by_y.view(x.shape)


def _all_at_once(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    return stirling_rows(x, y)[:3]


@with_partials(_both_slopes, together=_all_at_once)
def bregman_stirling(x: Tensor, y: Tensor) -> Tensor:
    """F(x) - F(y) - (x - y) F'(y) >= 0, for F = lgamma(x) - x log x + x and positive x, y.

    It is KL(Gamma(y, y) || Gamma(x, x)): two gammas of the same mean.
    """
    return stirling_rows(x.reshape(-1), y.reshape(-1), slopes=False).value.view(x.shape)


def bregman_lgamma(x: Tensor, y: Tensor) -> Tensor:
    """lgamma(x) - lgamma(y) - (x - y) digamma(y) >= 0 for positive x and y."""
    return bregman_stirling(x, y) + generalised_kl(x, y)
