r"""Bregman divergences of log gamma, in the KL of gamma, beta and Dirichlet distributions.

F(x) = lgamma(x) - x log x + x is the remainder of Stirling's formula. Its divergence
D(x, y) = F(x) - F(y) - (x - y) F'(y) is KL(Gamma(y, y) || Gamma(x, x)). It has to be accurate for
x from 1e-7 to 1e8, with y close to x and far from it. One approximation serves everywhere. With
m = 5,

    F(x) ~ x log((x + m) / x) - sum_j w_j log(x + j) + sum_j c_j / (x + j),

where j = 0..m, and 5.5, 6 and 7 too in the second sum. With c = 0, w_j = 1 for j < m and
w_m = 1/2 - m this is lgamma(x) = lgamma(x + 1) - log x, applied m times, and Stirling's formula.
What is left is Binet's function at x + m. The w and c are fitted to it, so that F'' has a relative
error of at most 2.8e-15 everywhere; the divergence and its derivatives then have it too. With
E(u) = u - log(1 + u) and d = x - y, the terms of first order cancel analytically:

    D(x, y) = sum_j w_j E(d / (y + j)) - x E(-m d / (x (y + m)))
              + d^2 sum_j c_j / ((x + j) (y + j)^2).

The terms are rows of one tensor, because an operation on a thousand numbers costs little more than
an operation on one. Value and derivatives are computed together for speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..autograd.custom import float32_form, value_and_partials, with_partials
from .divergences import kl_div
from .gamma import EULER_GAMMA, trigamma
from .logarithms import LOG1PMX_NUMBERS, excess_over_log, expm1mx, log1p_of
from .series import horner


@dataclass(frozen=True, eq=False)
class Fit:
    """The numbers of the formula above.

    They are fitted to F'' by least squares, repeatedly reweighted where the error was largest.

    Args:
        shifts: the j; the first m + 1 have a logarithm.
        w: weights of the logarithms.
        c: weights of the inverses.
        log1pmx: below which w^2 E is a series, and its coefficients.
    """

    shifts: tuple[float, ...]
    w: tuple[float, ...]
    c: tuple[float, ...]
    log1pmx: tuple[float, ...]


FLOAT64 = Fit(
    shifts=(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.5, 6.0, 7.0),
    w=(
        1.0,
        1.0 + 4.4126868526495502e-9,
        1.0 - 7.05806556255181425e-6,
        1.0 - 0.000948578066991700278,
        1.0 - 0.0205331891140456765,
        0.5 - 5 + 0.0214888208339144308,
    ),
    c=(
        0.0,
        -6.83652482225417767e-10,
        9.95641469833306356e-7,
        0.000224372679424471058,
        0.00720985296500696164,
        0.109158536496923215,
        -0.0126304962763471605,
        0.00186179475291359077,
        -0.0000402204496361685425,
    ),
    log1pmx=LOG1PMX_NUMBERS,
)
#: For float32 parameters: a relative error of F'' of at most 4.6e-9, in two thirds of the time.
FLOAT32 = Fit(
    shifts=(0.0, 1.0, 2.0, 3.0, 3.5),
    w=(1.0, 0.9999776665768546, 0.9887207729853746, -2.488698439562229),
    c=(0.0, 0.0, 0.0025404657547254406, 0.09841787485499875, -0.00630140010010094),
    log1pmx=(1e-5, 2 / 5, 2 / 3),
)


class _Constants(NamedTuple):
    """The numbers above as tensors: an operation on a Python number would make a tensor first."""

    shifts: Tensor  # one below the other
    of_excess: Tensor
    of_inverse: Tensor  # w, plus m at j = m: from x log((x + m) / x)
    c: Tensor
    one: Tensor
    two: Tensor
    m: Tensor
    minus_m: Tensor
    excess: tuple[Tensor, ...]


def _make_constants(fit: Fit, device: torch.device, dtype: torch.dtype) -> _Constants:
    def tensor(values: Sequence[float] | float) -> Tensor:
        return torch.tensor(values, device=device, dtype=dtype)

    m = float(len(fit.w) - 1)
    others = [0.0] * (len(fit.shifts) - len(fit.w))
    return _Constants(
        shifts=tensor(fit.shifts).unsqueeze(-1),
        of_excess=tensor(fit.w),
        of_inverse=tensor([*fit.w[:-1], fit.w[-1] + m, *others]),
        c=tensor(fit.c),
        one=tensor(1.0),
        two=tensor(2.0),
        m=tensor(m),
        minus_m=tensor(-m),
        excess=tuple(tensor(number) for number in fit.log1pmx),
    )


@lru_cache
def _kept_constants(fit: Fit, device: torch.device, dtype: torch.dtype) -> _Constants:
    # tensors that are made under torch.inference_mode could not be used outside of it
    with torch.inference_mode(mode=False):
        return _make_constants(fit, device, dtype)


def _constants(fit: Fit, like: Tensor) -> _Constants:
    # torch.compile makes constants itself, and warns of functions with a cache
    make = _make_constants if torch.compiler.is_compiling() else _kept_constants
    return make(fit, like.device, like.dtype)


class Rows(NamedTuple):
    """D(x, y), its wanted derivatives, and E of the additional arguments."""

    value: Tensor
    slopes: list[Tensor]
    excess: Tensor


def stirling_rows(
    x: Tensor,
    y: Tensor,
    more: Sequence[tuple[Tensor, Tensor]] = (),
    slopes: str = "xy",
    fit: Fit = FLOAT64,
) -> Rows:
    """D(x, y) of flat tensors, its derivatives F'(x) - F'(y) and (y - x) F''(y), and some E(u).

    Args:
        x: positive, n numbers or a single one.
        y: the same.
        more: pairs u and 1 + u, of n numbers each; E(u) is computed with the others.
        slopes: by which of x and y derivatives are wanted: "", "x", "y" or "xy".
        fit: the numbers of the formula.

    Returns:
        D of n numbers, a list of its slopes, and a matrix of a row for each of `more`.
    """
    k = _constants(fit, x)
    logs, d = len(fit.w), x - y
    at_x = x + k.shifts
    inverse_x, inverse_y = at_x.reciprocal(), (y + k.shifts).reciprocal()
    u = d * inverse_y
    e = (u[logs - 1] * k.minus_m / x).unsqueeze(0)
    arguments = [u[:logs], e, *(extra.unsqueeze(0) for extra, _ in more)]
    # where 1 + e is close to 0 it cancels, but the error is negligible beside the other terms
    ratios = [(at_x * inverse_y)[:logs], k.one + e, *(extra.unsqueeze(0) for _, extra in more)]
    below = torch.cat(arguments)
    found = excess_over_log(below, torch.log(torch.cat(ratios)), below / (k.two + below), k.excess)
    value = torch.addcmul(torch.mv(found[:logs].t(), k.of_excess), x, found[logs], value=-1)
    by_x = u * inverse_x
    both = torch.mv((by_x * inverse_y).t(), k.c)
    value = torch.addcmul(value, d, both)
    wanted = []
    if "x" in slopes:
        slope = torch.addmv(both, (by_x * inverse_x).t(), k.c)
        wanted.append(torch.addmv(slope, by_x.t(), k.of_inverse) + torch.log1p(e[0]))
    if "y" in slopes:
        by_y = u * inverse_y
        slope = torch.addmv(u[0] * (inverse_y[logs - 1] * k.m), by_y.t(), k.of_inverse, alpha=-1)
        wanted.append(torch.addmv(slope, (by_y * inverse_y).t(), k.c, alpha=-2))
    return Rows(value, wanted, found[logs + 1 :])


@value_and_partials(block=1600, float32={"block": 2400, "fit": FLOAT32})
def bregman_stirling(
    x: Tensor, y: Tensor, *, slopes: bool, fit: Fit = FLOAT64
) -> tuple[Tensor, ...]:
    """F(x) - F(y) - (x - y) F'(y) >= 0, for F = lgamma(x) - x log x + x and positive x, y.

    It is KL(Gamma(y, y) || Gamma(x, x)): two gammas of the same mean.
    """
    rows = stirling_rows(x, y, slopes="xy" * slopes, fit=fit)
    return rows.value, *rows.slopes


# --- from 1: an Exponential is the Gamma of concentration 1 -------------------------------------
#
# Near x = 1: minimax polynomials in w = (x - 1) / (x + 1) for w^2 < 0.002, with a relative error
# of 4e-15. Elsewhere lgamma and digamma, which have an absolute error of 1e-16, lose less than
# three digits. The derivatives are written by hand for their digits near 1.

_VALUE_NEAR_ONE = (
    0.822467033424113218,
    -0.801371268773000072,
    0.280951964938023744,
    -0.295809209993524612,
    0.181260039970352644,
    -0.184521417484908469,
    0.133183900039154029,
    -0.134908032131312247,
    0.105605387590677261,
)
_SLOPE_NEAR_ONE = (
    1.64493406684822644,
    -2.40411380631799756,
    1.92517912852417917,
    -2.04094998561790073,
    1.97498787432620042,
    -2.01668129945438488,
    1.9880729260092784,
    -2.01809523836412439,
    2.00217540373082684,
)
_NEAR, _FLOAT32_NEAR = 0.002, 1e-7


def _near_one(x: Tensor, d: Tensor, coefficients: Sequence[float], near: float) -> Any:
    """The polynomial, and the mask of where to use it."""
    w = d / (x + 1)
    return horner(coefficients, w), w * w < near


@float32_form(lambda x, d: _near_one(x, d, _SLOPE_NEAR_ONE[:3], _FLOAT32_NEAR))
def _slope_near_one(x: Tensor, d: Tensor) -> Any:
    return _near_one(x, d, _SLOPE_NEAR_ONE, _NEAR)


@float32_form(lambda x, d: _near_one(x, d, _VALUE_NEAR_ONE[:3], _FLOAT32_NEAR))
def _value_near_one(x: Tensor, d: Tensor) -> Any:
    return _near_one(x, d, _VALUE_NEAR_ONE, _NEAR)


# For digits: autograd would use torch.polygamma, whose relative error is 5e-10.
@with_partials(lambda x, d: (trigamma(x), None))
def _digamma_from_one(x: Tensor, d: Tensor) -> Tensor:
    series, near = _slope_near_one(x, d)
    return torch.where(near, d * series, torch.digamma(x) + EULER_GAMMA)


@with_partials(lambda x, d: (_digamma_from_one(x, d), None))
def _lgamma_from_one(x: Tensor, d: Tensor) -> Tensor:
    series, near = _value_near_one(x, d)
    return torch.where(near, d * d * series, torch.lgamma(x) + EULER_GAMMA * d)


def digamma_from_one(x: Tensor, d: Tensor | None = None) -> Tensor:
    """digamma(x) - digamma(1) for x > 0, accurate near 1; d is x - 1, computed here if missing."""
    return _digamma_from_one(x, x - 1 if d is None else d)


def bregman_lgamma_from_one(x: Tensor, d: Tensor | None = None) -> Tensor:
    """lgamma(x) - (x - 1) digamma(1) >= 0: `bregman_lgamma` of x and 1; arguments as above."""
    return _lgamma_from_one(x, x - 1 if d is None else d)


def gumbel_divergence(r: Tensor, d: Tensor, shift: Tensor) -> Tensor:
    """KL of two Gumbels: r is the ratio of their scales, d = r - 1, the shift is in q's scale.

    With a = lgamma(1 + r) - shift it is [exp(a) - 1 - a] + [lgamma(r) - lgamma(1) - d psi(1)].
    """
    excess = bregman_lgamma_from_one(r, d)
    # lgamma(1 + r) = log r + lgamma(r)
    log_factorial = excess + (log1p_of(d, r) - EULER_GAMMA * d)
    return expm1mx(log_factorial - shift) + excess


# --- of any two ---------------------------------------------------------------------------------


def bregman_lgamma(x: Tensor, y: Tensor) -> Tensor:
    """lgamma(x) - lgamma(y) - (x - y) digamma(y) >= 0 for positive x and y."""
    return bregman_stirling(x, y) + kl_div(x, y)
