r"""Terms of Renyi's and of Jensen and Shannon's divergence, none of them negative.

Renyi's divergence of order a is log(rho) / (a - 1), where rho is the sum (or integral) of
p^a q^(1 - a). Both densities sum to 1, so that

    rho = 1 - (1 - a) K,    K = sum of [a p + (1 - a) q - p^a q^(1 - a)] / (1 - a),

whose terms are never negative (Young's inequality) and of second order where p is close to q. For
a = 1 they are p log(p/q) - p + q, and K is the KL. Jensen and Shannon's divergence is the sum of

    m [log 2 - H(p / (p + q))],    m = (p + q) / 2,  H the entropy of two outcomes.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..autograd.custom import with_partials
from .divergences import kl_div_of_logs
from .logarithms import log1pmx, ratio_minus_one
from .series import horner

#: Up to this log ratio, the terms of Renyi's divergence are a series in it.
_CLOSE = 0.5
_TERMS = 16


def renyi_terms(log_p: Tensor, log_q: Tensor, alpha: float) -> Tensor:
    """[a p + (1 - a) q - p^a q^(1 - a)] / (1 - a) from log p and log q, either may be -inf.

    Args:
        log_p: log of p's density or mass.
        log_q: the same of q.
        alpha: the order a > 0. Below 1/2 the terms lose digits: the caller exchanges p and q.
    """
    if alpha == 1.0:
        return kl_div_of_logs(log_p, log_q)
    beta = 1 - alpha
    no_p, no_q = torch.isneginf(log_p), torch.isneginf(log_q)
    inside = ~(no_p | no_q)
    lp, lq = torch.where(inside, log_p, 0.0), torch.where(inside, log_q, 0.0)
    only_q = torch.exp(torch.where(no_p, log_q, -math.inf))
    only_p = torch.exp(torch.where(no_q, log_p, -math.inf)) * (alpha / beta)
    without_q = torch.where(no_p, 0.0, only_p if beta > 0 else math.inf)
    at_ends = torch.where(no_q, without_q, only_q)
    return torch.where(inside, renyi_inside(alpha)(lp, lq), at_ends)


@lru_cache(maxsize=64)
def renyi_inside(alpha: float) -> Any:
    """The function of finite log p and log q that gives these terms."""
    beta = 1 - alpha
    # [exp(b r) - 1 - b (exp(r) - 1)] / (b (b - 1)) = sum_k (1 + b + ... + b^(k - 2)) r^k / k!
    series = [sum(beta**j for j in range(k - 1)) / math.factorial(k) for k in range(2, _TERMS + 1)]

    def slope(p: Tensor, log_ratio: Tensor, log_product: Tensor) -> Tensor:
        """(p - p^a q^b) / b, by a difference of logarithms where that is small."""
        near = (beta * log_ratio).abs() < 1
        small = -p * torch.expm1(torch.where(near, beta * log_ratio, 0.0))
        return torch.where(near, small, p - torch.exp(log_product)) / beta

    def partials(lp: Tensor, lq: Tensor) -> tuple[Tensor, Tensor]:
        r, product = lq - lp, alpha * lp + beta * lq
        near = (alpha * r).abs() < 1
        small = -torch.exp(lq) * torch.expm1(torch.where(near, -alpha * r, 0.0))
        by_q = torch.where(near, small, torch.exp(lq) - torch.exp(product))
        return alpha * slope(torch.exp(lp), r, product), by_q

    @with_partials(partials)
    def terms(lp: Tensor, lq: Tensor) -> Tensor:
        r, p, q = lq - lp, torch.exp(lp), torch.exp(lq)
        near = torch.maximum(r.abs(), (beta * r).abs()) < _CLOSE
        u = torch.where(near, r, 0.0)
        close = alpha * p * u * u * horner(series, u)
        far = q - p + slope(p, r, alpha * lp + beta * lq)
        return torch.where(near, close, far)

    return terms


def renyi_of_sum(total: Tensor, alpha: float) -> Tensor:
    """Renyi's divergence from the sum K of `renyi_terms`."""
    if alpha == 1.0:
        return total
    return -torch.log1p(-(1 - alpha) * total) / (1 - alpha)


def _jensen_shannon_partials(lp: Tensor, lq: Tensor) -> tuple[Tensor, Tensor]:
    s = 0.5 * (lq - lp)
    # log(p / m) = log 2 - log(1 + q/p)
    return (
        -0.5 * torch.exp(lp) * (s + _log_cosh(s)),
        -0.5 * torch.exp(lq) * (_log_cosh(s) - s),
    )


def _log_cosh(s: Tensor) -> Tensor:
    size = s.abs()
    near = size < 1
    close = torch.log1p(2 * torch.sinh(0.5 * torch.where(near, size, 0.0)) ** 2)
    return torch.where(near, close, size + torch.log1p(torch.exp(-2 * size)) - math.log(2))


@with_partials(_jensen_shannon_partials)
def jensen_shannon_inside(lp: Tensor, lq: Tensor) -> Tensor:
    """The same of finite logarithms: m (s tanh s - log cosh s), with s half of the log ratio."""
    s = 0.5 * (lq - lp).abs()
    fallen = torch.expm1(-2 * s)  # the smaller density over the larger one, less 1
    both = 2 + fallen
    # 1 - tanh s; and log cosh s - s, or of what is small the logarithm of 1 - tanh^2 s
    rest, near = 2 * (1 + fallen) / both, s < 0.5
    tanh = -fallen / both
    log = torch.log1p(torch.where(near, -tanh * tanh, 0.5 * fallen))
    gap = torch.where(near, s * tanh + 0.5 * log, -s * rest - log)
    return 0.5 * torch.exp(torch.maximum(lp, lq)) * both * gap


def jensen_shannon_terms(log_p: Tensor, log_q: Tensor) -> Tensor:
    """[p log(p/m) + q log(q/m)] / 2 with m = (p + q)/2, from logs, either may be -inf."""
    no_p, no_q = torch.isneginf(log_p), torch.isneginf(log_q)
    inside = ~(no_p | no_q)
    lp, lq = torch.where(inside, log_p, 0.0), torch.where(inside, log_q, 0.0)
    one = torch.exp(torch.where(no_p, log_q, torch.where(no_q, log_p, -math.inf)))
    return torch.where(inside, jensen_shannon_inside(lp, lq), 0.5 * math.log(2) * one)


def jensen_shannon_share(log_p: Tensor, log_q: Tensor) -> Tensor:
    """p [log 2 - H(p / (p + q))]: p's half of `jensen_shannon_terms`, times 2; at most p log 2."""
    only_p = torch.isneginf(log_q)
    some = ~(torch.isneginf(log_p) | only_p)
    s = 0.5 * (torch.where(some, log_q, 0.0) - torch.where(some, log_p, 0.0))
    near = s.abs() < 1
    u, size = torch.where(near, s, 0.0), torch.where(near, 1.0, s.abs())
    close = u * torch.tanh(u) - torch.log1p(2 * torch.sinh(0.5 * u) ** 2)
    entropy = torch.log1p(torch.exp(-2 * size)) + 2 * size * torch.sigmoid(-2 * size)
    gap = torch.where(near, close, math.log(2) - entropy)
    return torch.exp(log_p) * torch.where(some, gap, torch.where(only_p, math.log(2), 0.0))


def log_gap(v: Tensor, alpha: float, log_ratio: Tensor | None = None) -> Tensor:
    """log(1 + b v) / b - log(1 + v) for b = 1 - a: never negative, of second order in v.

    It is twice Renyi's divergence of two Normals of equal means, with v the ratio of their
    variances minus 1, and that of two Exponentials, with v the ratio of q's rate to p's minus 1.
    For a = 1 it is v - log(1 + v). It is defined where 1 + b v > 0.

    Args:
        v: the ratio minus 1, with its own digits where it is small.
        alpha: a, above 0.
        log_ratio: log(1 + v), which v has lost where it has rounded to -1.
    """
    beta = 1 - alpha
    if beta == 0.0:
        # the terms of first order cancel analytically
        close, first_order = -log1pmx(v), v
    else:
        close, first_order = log1pmx(beta * v) / beta - log1pmx(v), torch.log1p(beta * v) / beta
    return (
        close if log_ratio is None else torch.where(v.abs() < 0.5, close, first_order - log_ratio)
    )


def renyi_of_rates(p: Tensor, q: Tensor, alpha: float) -> Tensor:
    """Renyi's divergence of two Exponentials of these rates, +inf where the mean is infinite.

    With v = q / p - 1 it is log(1 + (1 - a) v) / (1 - a) - log(1 + v).
    """
    v = ratio_minus_one(q, p)
    finite = ~(1 + (1 - alpha) * v <= 0)
    gap = log_gap(torch.where(finite, v, 0.0), alpha, torch.log(q) - torch.log(p))
    return torch.where(finite, gap, math.inf)
