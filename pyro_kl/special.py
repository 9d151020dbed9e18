r"""Special functions that torch lacks or computes with too few digits, with gradients.

Every function here is a Bregman divergence or a piece of one: a quantity that vanishes to second
order when its two arguments meet. Variational inference lives there (the posterior of a weight
that the data say little about is close to its prior), and there the textbook difference of large
terms has no digits left. All are compositions of torch operations without a branch on values, so
`torch.func.vmap`, `torch.compile` and double backward go through them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "bernoulli_excess",
    "bregman_lgamma",
    "bregman_stirling",
    "generalised_kl",
    "generalised_kl_of_logs",
    "itakura_saito",
    "itakura_saito_of",
    "log1p_minus",
    "log_mass",
    "trigamma",
]

# B_2k / (2k (2k - 1)), k = 1..8: Stirling's series (Abramowitz & Stegun 1964, 6.1.40).
_STIRLING = (
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


def trigamma(x: Tensor) -> Tensor:
    """The second derivative of log gamma, by Hurwitz's zeta(2, x).

    `torch.polygamma(1, x)` has a relative error of 5e-10 in float64; zeta(2, x) of 5e-16.
    """
    return torch.special.zeta(torch.full_like(x, 2.0), x)


def log_mass(mass: Tensor) -> Tensor:
    """log of a mass that may be zero: -inf there, with a zero gradient instead of nan."""
    positive = mass > 0
    return torch.where(positive, torch.log(torch.where(positive, mass, 1.0)), -math.inf)


def log1p_minus(u: Tensor) -> Tensor:
    """log(1 + u) - u without cancellation at u = 0; u > -1.

    With w = u / (2 + u), log(1 + u) = 2 atanh(w) and u = 2 w / (1 - w), so that the terms of
    first order cancel by hand: log(1 + u) - u = -u w + 2 w^3 (1/3 + w^2/5 + w^4/7 + ...).
    """
    small = u.abs() < 0.4
    near = torch.where(small, u, 0.0)
    w = near / (2 + near)
    w2 = w * w
    series = torch.full_like(w, 1 / 33)
    for odd in range(31, 1, -2):
        series = series * w2 + 1 / odd
    far = torch.where(small, 1.0, u)
    return torch.where(small, 2 * w * w2 * series - near * w, torch.log1p(far) - far)


def itakura_saito_of(u: Tensor, log_ratio: Tensor) -> Tensor:
    """r - 1 - log r for r = 1 + u, with u and log r given by whoever knows them best."""
    small = u.abs() < 0.4
    near = -log1p_minus(torch.where(small, u, 0.0))
    return torch.where(small, near, u - torch.where(small, 0.0, log_ratio))


def itakura_saito(x: Tensor, y: Tensor) -> Tensor:
    """x/y - 1 - log(x/y) for positive x and y: the Itakura-Saito divergence, >= 0.

    It is the Bregman divergence of -log, and KL(Exponential(1/x) || Exponential(1/y)).
    """
    return _itakura_saito(x, y, x - y)


def _itakura_saito(x: Tensor, y: Tensor, difference: Tensor) -> Tensor:
    return itakura_saito_of(difference / y, torch.log(x) - torch.log(y))


def generalised_kl(x: Tensor, y: Tensor) -> Tensor:
    """x log(x/y) - x + y for positive x and y: the Bregman divergence of x log x, >= 0.

    It is KL(Poisson(x) || Poisson(y)). With u = (x - y)/y it is y [u log(1 + u) + log(1+u) - u].
    """
    return _generalised_kl(x, y, x - y)


def _generalised_kl(x: Tensor, y: Tensor, difference: Tensor) -> Tensor:
    u = difference / y
    small = u.abs() < 0.4
    near = torch.where(small, u, 0.0)
    close = y * (near * torch.log1p(near) + log1p_minus(near))
    log_ratio = torch.log(x) - torch.log(y)
    return torch.where(small, close, x * torch.where(small, 0.0, log_ratio) - difference)


def generalised_kl_of_logs(log_x: Tensor, log_y: Tensor) -> Tensor:
    """x log(x/y) - x + y from log x and log y, either of which may be -inf.

    The term of an exact sum: summed over all atoms the `- x + y` vanish, and without them the
    terms cancel to first order. x = 0 leaves y; y = 0 < x gives inf; both zero gives 0.
    """
    x_is_zero, y_is_zero = torch.isneginf(log_x), torch.isneginf(log_y)
    inside = ~(x_is_zero | y_is_zero)
    lx, ly = torch.where(inside, log_x, 0.0), torch.where(inside, log_y, 0.0)
    d = lx - ly
    small = d.abs() < 0.5
    near = torch.where(small, d, 0.0)
    # exp(-d) - 1 + d = d^2/2 - d^3/6 + ..., Horner
    series = torch.full_like(near, 1 / 17)
    for k in range(16, 2, -1):
        series = (1 - near * series) / k
    series = near * near * (1 - near * series) / 2
    x = torch.exp(lx)
    value = torch.where(small, x * series, x * (d - 1) + torch.exp(ly))
    only_y = torch.exp(torch.where(x_is_zero & ~y_is_zero, log_y, -math.inf))
    value = torch.where(inside, value, only_y)
    return torch.where(y_is_zero & ~x_is_zero, math.inf, value)


def bernoulli_excess(x1: Tensor, x0: Tensor, y1: Tensor, y0: Tensor) -> Tensor:
    """x1 log(x1/m1) + x0 log(x0/m0), m = y (x1 + x0)/(y1 + y0): two positive counts against two.

    It is (x1 + x0) KL(Bernoulli(x1 / (x1 + x0)) || Bernoulli(y1 / (y1 + y0))). The deviation
    from proportionality, x1 y0 - x0 y1, is taken from the differences x - y.
    """
    total, y_total = x1 + x0, y1 + y0
    cross = (x1 - y1) * y0 - (x0 - y0) * y1

    def term(x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        expected = y * total / y_total
        small = u.abs() < 0.4
        near = torch.where(small, u, 0.0)
        close = expected * (near * torch.log1p(near) + log1p_minus(near))
        log_ratio = torch.log(x) - torch.log(y) - torch.log(total) + torch.log(y_total)
        return torch.where(
            small, close, x * torch.where(small, 0.0, log_ratio) - expected * u
        )

    return term(x1, y1, cross / (y1 * total)) + term(x0, y0, -cross / (y0 * total))


def bregman_stirling(x: Tensor, y: Tensor) -> Tensor:
    """F(x) - F(y) - (x - y) F'(y) for F = lgamma(x) - x log x + x; x, y > 0.

    F is what Stirling's leading term leaves of log gamma; the divergence is
    KL(Gamma(y, y) || Gamma(x, x)): two gammas of the same mean. Above 12, Stirling's series term
    by term, each term a Bregman divergence in positive parts; below, both arguments are moved up
    by 12 with lgamma(x) = lgamma(x + 1) - log x.
    """
    shifted, moved_up, small = _bregman_lgamma_parts(x, y)
    below = shifted + moved_up - generalised_kl(x, y)
    return torch.where(small, below, shifted)


def bregman_lgamma(x: Tensor, y: Tensor) -> Tensor:
    """lgamma(x) - lgamma(y) - (x - y) digamma(y) >= 0 for positive x and y."""
    shifted, moved_up, small = _bregman_lgamma_parts(x, y)
    return shifted + torch.where(small, moved_up, generalised_kl(x, y))


def _bregman_lgamma_parts(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Stirling's part at the shifted arguments, what the shift adds, and where it was needed."""
    x, y = torch.broadcast_tensors(x, y)
    small = torch.minimum(x, y) < _STIRLING_FROM
    shift = torch.where(small, float(_STIRLING_FROM), 0.0).to(x.dtype)
    x_up, y_up = x + shift, y + shift
    steps = torch.arange(_STIRLING_FROM, dtype=x.dtype, device=x.device)
    x_steps = torch.where(small, x, 1.0).unsqueeze(-1) + steps
    y_steps = torch.where(small, y, 1.0).unsqueeze(-1) + steps
    difference = x - y  # (x + 12) - (y + 12) would round it away
    moved_up = _itakura_saito(x_steps, y_steps, difference.unsqueeze(-1)).sum(-1)
    moved_up = moved_up + _generalised_kl(x_up, y_up, difference)
    return _bregman_stirling_series(x_up, y_up, difference), moved_up, small


def _bregman_stirling_series(x: Tensor, y: Tensor, difference: Tensor) -> Tensor:
    """The divergence of -log(x)/2 + sum_k c_k x^(1 - 2k), for arguments above 12.

    The divergence of x^-n is (x - y)^2 / (x y) T_n, with S_n = S_{n-1}/y + x^(1-n) and
    T_n = (T_{n-1} + S_n)/y, S_0 = T_0 = 0: sums of positive terms (derived here by telescoping).
    """
    inv_x, inv_y = 1 / x, 1 / y
    s = torch.zeros_like(x)
    t = torch.zeros_like(x)
    power = torch.ones_like(x)
    total = torch.zeros_like(x)
    for n in range(1, 2 * len(_STIRLING)):
        s = s * inv_y + power
        t = (t + s) * inv_y
        power = power * inv_x
        if n % 2:
            total = total + _STIRLING[n // 2] * t
    u = difference * inv_y
    return 0.5 * _itakura_saito(x, y, difference) + u * u * y * inv_x * total
