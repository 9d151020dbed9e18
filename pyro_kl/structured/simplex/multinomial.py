"""Multinomial and DirichletMultinomial: counts of categories, by their marginals."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from pyro.distributions import DirichletMultinomial
from torch import Tensor
from torch.distributions import Distribution, Multinomial, constraints, kl_divergence

from ...numerics.dtypes import in_float64, promoted
from ...numerics.special.counts import largest, log_choose, log_rising, times
from ...numerics.special.divergences import itakura_saito_of
from ...numerics.special.logarithms import safe_log
from ...registry.at_points import AtPoints, at_atoms, check_size
from ...registry.entropy import entropy_formula
from ...registry.pair import Case
from ...registry.shapes import broadcast_batch, some_tensor
from ...registry.structured_family import StructuredFamily, register_each

MULTINOMIAL = StructuredFamily(
    Multinomial,
    {"probs": constraints.simplex},
    make=lambda total_count, probs: Multinomial(int(total_count), probs),
)
DIRICHLET_MULTINOMIAL = StructuredFamily(
    DirichletMultinomial,
    {"concentration": constraints.independent(constraints.positive, 1)},
)
_EQUAL_COUNTS = "p.total_count == q.total_count"
_REFERENCE = "Johnson, Kotz & Balakrishnan (1997), sec. 35.13.1"
_FIVE = {"total_count": 5, "probs": [0.2, 0.3, 0.5]}
_LATER = {"total_count": 5, "probs": [0.4, 0.4, 0.2]}
_POLYA = {"total_count": 4, "concentration": [2.0, 0.7, 3.0]}
_OTHER_POLYA = {"total_count": 4, "concentration": [1.0, 1.5, 0.4]}
_NEAR_POLYA = {"total_count": 4, "concentration": [2.0, 0.7, 3.0009765625]}
_FOUR = {"total_count": 4, "probs": [0.4, 0.4, 0.2]}
_MULTINOMIAL_CASES = [
    Case(_FIVE, _LATER, 1.16605654044777090),
    Case(_FIVE, {**_FIVE, "total_count": 4}, math.inf),
]
_POLYA_CASES = [
    Case(_POLYA, _OTHER_POLYA, 1.2623638071286849546),
    Case(_POLYA, _NEAR_POLYA, 3.7287464139295880937e-8),
    Case(_POLYA, {**_POLYA, "total_count": 3}, math.inf),
]


_COUNTS = (Multinomial, DirichletMultinomial)


@register_each(
    (MULTINOMIAL, MULTINOMIAL, _MULTINOMIAL_CASES),
    finite=_EQUAL_COUNTS + " and q has mass wherever p has",
    reference="chain rule over the trials",
    method="exact sum",
)
def kl_multinomial(p: Multinomial, q: Multinomial) -> Tensor:
    """total_count KLs of one trial."""
    shape = broadcast_batch(p, q)
    trial = kl_divergence(p._categorical, q._categorical).expand(shape)
    if p.total_count != q.total_count:
        return torch.full_like(trial, math.inf)
    return p.total_count * trial if p.total_count else torch.zeros_like(trial)


@register_each(
    (DIRICHLET_MULTINOMIAL, DIRICHLET_MULTINOMIAL, _POLYA_CASES),
    finite=_EQUAL_COUNTS,
    reference=_REFERENCE + ": the mass is a product over the categories",
    method="exact sum",
)
def kl_dirichlet_multinomial(p: DirichletMultinomial, q: DirichletMultinomial) -> Tensor:
    r"""KL of two Polya distributions, O(K n), every term of second order.

    The log ratio is a sum over the categories of log [a (a + 1) ... / (b (b + 1) ...)], with x_k
    factors each. Terms linear in a - b cancel between the categories and the totals A and B. With
    D(y, x) = y/x - 1 - log(y/x), and x_k BetaBinomial(n, a_k, A - a_k),

        KL = sum_k sum_{i < n} P(x_k > i) D(b_k + i, a_k + i) - sum_{i < n} D(B + i, A + i)
    """
    shape = broadcast_batch(p, q)
    a, b = in_float64(p.concentration), in_float64(q.concentration)
    n, j = _counts(p)
    i = j[:-1]
    beyond = polya_marginals(p, j).flip(-1).cumsum(-1).flip(-1)[..., 1:]
    each = _divergence_of_factors(b, a, b - a, i)
    of_total = _divergence_of_factors(b.sum(-1), a.sum(-1), (b - a).sum(-1), i)
    whole = torch.where(i < n.unsqueeze(-1), of_total, 0.0).sum(-1)
    kl = (beyond * each).sum((-2, -1)) - whole
    dtype = promoted((p.concentration, q.concentration))
    return _where_counts_agree(kl, p, q).to(dtype).expand(shape)


def _divergence_of_factors(y: Tensor, x: Tensor, difference: Tensor, i: Tensor) -> Tensor:
    """D(y + i, x + i) along a new last dimension, with y - x given."""
    y, x, difference = (t.unsqueeze(-1) for t in (y, x, difference))
    return itakura_saito_of(difference / (x + i), (y + i) / (x + i))


@register_each(
    (DIRICHLET_MULTINOMIAL, MULTINOMIAL, [Case(_POLYA, _FOUR, 1.3757115629756547864)]),
    finite=_EQUAL_COUNTS + " and q has mass everywhere",
    reference=_REFERENCE,
    method="exact sum",
)
def kl_dirichlet_multinomial_multinomial(p: DirichletMultinomial, q: Multinomial) -> Tensor:
    """sum_k E log (a_k)_x - log (A)_n - n sum_k (a_k / A) log q_k, (a)_x a rising factorial."""
    shape = broadcast_batch(p, q)
    a = in_float64(p.concentration)
    n, j = _counts(p)
    own = (polya_marginals(p, j) * log_rising(a.unsqueeze(-1), j)).sum((-2, -1))
    mean = n.unsqueeze(-1) * a / a.sum(-1, keepdim=True)
    cross = times(mean, safe_log(in_float64(q.probs))).sum(-1)
    kl = own - log_rising(a.sum(-1), n) - cross
    dtype = promoted((p.concentration, q.probs))
    return _where_counts_agree(kl, p, q).to(dtype).expand(shape)


@register_each(
    (MULTINOMIAL, DIRICHLET_MULTINOMIAL, [Case(_FOUR, _POLYA, 1.0325296737408845245)]),
    finite=_EQUAL_COUNTS,
    reference=_REFERENCE,
    method="exact sum",
)
def kl_multinomial_dirichlet_multinomial(p: Multinomial, q: DirichletMultinomial) -> Tensor:
    """N sum_k p_k log p_k + log (B)_n - sum_k E log (b_k)_x, x being Binomial(n, p_k)."""
    shape = broadcast_batch(p, q)
    probs, b = in_float64(p.probs), in_float64(q.concentration)
    n, j = _counts(p)
    n = n.to(probs.device)
    log_p, log_rest = safe_log(probs).unsqueeze(-1), safe_log(1 - probs).unsqueeze(-1)
    mass = torch.exp(log_choose(n, j.to(probs)) + times(j, log_p) + times(n - j, log_rest))
    expected = (mass * log_rising(b.unsqueeze(-1), j)).sum((-2, -1))
    own = n * times(probs, safe_log(probs)).sum(-1)
    kl = own + log_rising(b.sum(-1), n) - expected
    dtype = promoted((p.probs, q.concentration))
    return _where_counts_agree(kl, p, q).to(dtype).expand(shape)


def _counts(distribution: Any) -> tuple[Tensor, Tensor]:
    """total_count, and the counts from 0 to the largest of it."""
    n = torch.as_tensor(distribution.total_count, dtype=torch.float64)
    return n, torch.arange(largest(n) + 1, device=n.device)


def polya_marginals(distribution: DirichletMultinomial, j: Tensor) -> Tensor:
    """The masses of each category's counts j, along a new last dimension; 0 beyond n."""
    a = in_float64(distribution.concentration)
    n = in_float64(distribution.total_count).unsqueeze(-1).unsqueeze(-1)
    rest = (a.sum(-1, keepdim=True) - a).unsqueeze(-1)
    inside = j <= n
    x = torch.where(inside, j, 0).to(a)
    own = log_rising(a.unsqueeze(-1), x) + log_rising(rest, torch.where(inside, n - x, 0.0))
    log = log_choose(n, x) + own - log_rising(a.unsqueeze(-1) + rest, n)
    return torch.where(inside, torch.exp(log), 0.0)


def _where_counts_agree(kl: Tensor, p: Any, q: Any) -> Tensor:
    left, right = (torch.as_tensor(x.total_count, device=kl.device) for x in (p, q))
    differ = (left - right).abs() > 0  # False for nan, which the sum below keeps
    return torch.where(differ, math.inf, kl + (left - right))


# --- entropy, and what the other divergences need -----------------------------------------------


@entropy_formula(DirichletMultinomial, method="exact sum")
def entropy_of_dirichlet_multinomial(p: DirichletMultinomial) -> Tensor:
    """log (A)_n - log n! - sum_k E [log (a_k)_x - log x!], by the marginals of the categories."""
    a = in_float64(p.concentration)
    n, j = _counts(p)
    log_each = log_rising(a.unsqueeze(-1), j) - torch.lgamma(j.to(a) + 1)
    expected = (polya_marginals(p, j) * log_each).sum((-2, -1))
    return log_rising(a.sum(-1), n) - torch.lgamma(n + 1) - expected


@at_atoms(_COUNTS, _COUNTS)
def all_counts(p: Distribution, q: Distribution) -> AtPoints | None:
    """All vectors of counts; None for a batch of distributions of different totals."""
    totals = [torch.as_tensor(x.total_count).detach() for x in (p, q)]  # type: ignore[attr-defined]
    if any(bool((n != n.flatten()[0]).any()) for n in totals):
        return None
    n, other = (int(n.flatten()[0]) for n in totals)
    k = p.event_shape[0]
    check_size(math.comb(n + k - 1, k - 1) * k * broadcast_batch(p, q).numel())
    counts = _compositions(n, k).to(some_tensor(p).device)
    log_p = _log_masses(p, counts)
    if n == other:
        return AtPoints(log_p, _log_masses(q, counts))
    return AtPoints(log_p, torch.full_like(log_p, -math.inf), q_elsewhere=1.0)


def _log_masses(distribution: Any, counts: Tensor) -> Tensor:
    """At vectors of counts that have the right total, along a new last dimension."""
    if isinstance(distribution, Multinomial):
        log_probs = safe_log(in_float64(distribution.probs))
        each = times(counts, log_probs.unsqueeze(-2)).sum(-1)
    else:
        a = in_float64(distribution.concentration)
        each = log_rising(a.unsqueeze(-2), counts).sum(-1)
        each = each - log_rising(a.sum(-1, keepdim=True), counts[0].sum())
    orders = torch.lgamma(counts[0].sum() + 1.0) - torch.lgamma(counts + 1.0).sum(-1)
    return orders + each


@lru_cache(maxsize=16)
def _compositions(n: int, k: int) -> Tensor:
    """All vectors of k counts whose sum is n."""
    counts, left = torch.zeros((1, 0)), torch.tensor([n])
    for _ in range(k - 1):
        row = torch.arange(len(left)).repeat_interleave(left + 1)
        first = (left + 1).cumsum(0) - (left + 1)
        count = torch.arange(len(row)) - first[row]
        counts = torch.cat((counts[row], count.unsqueeze(-1)), -1)
        left = left[row] - count
    return torch.cat((counts, left.unsqueeze(-1)), -1).to(torch.float64)
