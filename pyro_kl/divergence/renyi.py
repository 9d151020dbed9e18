"""Renyi's divergence of two distributions: by formula, by a sum over atoms, or by an integral."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Multinomial, kl_divergence

from ..messages import see
from ..registry.reduction import canonicalise
from ..registry.renyi import closed_renyi, products_of
from ..registry.shapes import (
    broadcast_batch,
    nan_rows,
    peel,
    some_tensor,
    sum_events,
)
from ..registry.subclasses import is_a
from ..registry.tensors import promoted
from ..wrappers.circle import check_one_turn
from ..wrappers.masked import selections
from ..wrappers.transformed.rules import without_shared_maps
from . import sums
from .at_points import renyi_at_points
from .discrete import discrete
from .estimate import Estimate
from .found import Found, of_one_or_masked
from .greatest_ratio_of_counts import greatest_ratio_of_counts
from .integrals.checks import not_on_line, of_empty_batch
from .integrals.greatest_ratio import greatest_ratio_on_line
from .integrals.renyi import renyi_by_integral
from .kl import kl
from .mixtures import check_pair
from .normalised import check_normalised, is_point, is_singular


def renyi(p: Distribution, q: Distribution, alpha: float) -> Estimate:
    """Renyi's divergence of order alpha, log(E_q (p/q)^alpha) / (alpha - 1), without sampling.

    Order 1/2 is twice Bhattacharyya's distance, and -2 log(1 - H^2) for Hellinger's distance H;
    1 is the KL; 2 is log(1 + chi-squared), and finite exactly where the importance weights of
    samples of q for p have a variance; infinity is the logarithm of the largest weight.

    Args:
        p: the first distribution (the target of importance sampling).
        q: the second distribution (the proposal), on the same space.
        alpha: the order, from 0 to infinity.

    Returns:
        Nats, of shape broadcast(p.batch_shape, q.batch_shape), with the method, and the error of
        an integral. It increases with alpha; +inf where p has too much mass where q has little.

    Raises:
        NotImplementedError: there is no formula, sum or integral, or it is not known whether the
            divergence is finite.
        TypeError: one of them is not a distribution.
        ValueError: alpha is negative or no number; event shapes differ, or batch shapes do not
            broadcast.

    Reference:
        van Erven & Harremoes (2014), Renyi divergence and Kullback-Leibler divergence.

    Example:
        >>> p, q = torch.distributions.Normal(1.0, 1.0), torch.distributions.Normal(0.0, 1.0)
        >>> print(pyro_kl.renyi(p, q, alpha=2.0))
        1 nats  [closed form: pyro_kl.families.normal]
    """
    if isinstance(alpha, bool) or not isinstance(alpha, Real) or not alpha >= 0:
        raise ValueError(
            f"alpha must be a number from 0 to infinity, the order: {alpha!r}" + see("option")
        )
    check_pair(p, q, "Renyi")
    alpha = float(alpha)
    if alpha == 1.0:
        return kl(p, q)
    return _found(p, q, alpha).as_estimate()


def _found(p: Distribution, q: Distribution, alpha: float) -> Found:
    """The divergence by the first way that there is."""
    shape = broadcast_batch(p, q)
    plain_case = of_one_or_masked(p, q, "Renyi", lambda p, q: _found(p, q, alpha))
    if plain_case is not None:
        return plain_case
    if is_point(p):  # the log ratio is the same number at all of p's points
        value = kl_divergence(p, q).expand(shape)
        return Found(value, "point density", "the log ratio at p's point")
    selected = selections(p, q)
    if selected is not None:
        mask, *choices = selected
        where_not, where = (_found(*pair, alpha) for pair in choices)
        return where.where(mask, where_not, shape)
    if is_singular(p, q):
        nothing = some_tensor(p).detach().new_zeros(()).expand(shape)
        return Found(nothing + math.inf, "infinite", "one has atoms, the other a density")
    check_normalised("Renyi", p, q)
    if is_a(p, Multinomial) and is_a(q, Multinomial):
        trial = _found(p._categorical, q._categorical, alpha).changed(lambda x: x.expand(shape))
        return trial.changed(lambda x: _of_trials(x, p.total_count, q.total_count))
    closed = _from_half_on(_by_formula, p, q, alpha)
    if closed is not None:
        return closed
    if is_a(p, Independent) and is_a(q, Independent):
        shared = min(p.reinterpreted_batch_ndims, q.reinterpreted_batch_ndims)
        events = p.event_shape[:shared]
        inner = _found(peel(p, shared), peel(q, shared), alpha)
        return inner.changed(lambda x: sum_events(x, shape, events))
    plain = canonicalise(p), canonicalise(q)
    if plain[0] is not p or plain[1] is not q:
        return _found(*plain, alpha).changed(lambda x: x.expand(shape))
    bases = without_shared_maps(p, q) or products_of(p, q)
    if bases is not None:
        return _found(*bases, alpha).changed(lambda x: x.expand(shape))
    found = (
        _from_half_on(_by_sum, p, q, alpha)
        or _from_half_on(renyi_at_points, p, q, alpha)
        or of_empty_batch(p, q)
        or _on_line(p, q, alpha)
    )
    if found is None:
        raise not_on_line("Renyi", p, q)
    return found.changed(lambda x: x.expand(shape).to(promoted((p, q))))


def _from_half_on(
    of_pair: Callable[[Distribution, Distribution, float], Found | None],
    p: Distribution,
    q: Distribution,
    alpha: float,
) -> Found | None:
    """What a function of p, q and the order gives, asked for orders from 1/2 on only.

    (1 - a) D(p, q, a) = a D(q, p, 1 - a): from 1/2 on the terms keep their digits.
    """
    if not 0 < alpha < 0.5:
        return of_pair(p, q, alpha)
    found = of_pair(q, p, 1 - alpha)
    return found and found.changed(lambda x: alpha / (1 - alpha) * x)


def _by_formula(p: Distribution, q: Distribution, alpha: float) -> Found | None:
    closed = closed_renyi(p, q, alpha)
    return closed and Found(*closed)


def _of_trials(trial: Tensor, count: int, other: int) -> Tensor:
    """Of as many independent trials as both have, from the divergence of one of them."""
    if count != other:
        return torch.full_like(trial, math.inf)
    return count * trial if count else torch.zeros_like(trial)


def _on_line(p: Distribution, q: Distribution, alpha: float) -> Found | None:
    if alpha == math.inf:
        check_one_turn(p, q)
        return greatest_ratio_on_line(p, q)
    return renyi_by_integral(p, q, alpha)


def _by_sum(p: Distribution, q: Distribution, alpha: float) -> Found | None:
    of_p, of_q = discrete(p), discrete(q)
    if of_p is None or of_q is None:
        return None
    if alpha == 0.0:
        value = sums.zeroth_renyi_sum(of_p, of_q)
    elif alpha == math.inf:
        value = greatest_ratio_of_counts(of_p, of_q)
    else:
        value = sums.renyi_sum(of_p, of_q, alpha)
    value = torch.where(nan_rows(p) | nan_rows(q), math.nan, value)
    return Found(value, "exact sum", of_p.family.home)
