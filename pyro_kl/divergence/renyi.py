"""Renyi's divergence of two distributions: by formula, by a sum over atoms, or by an integral."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from ..messages import see
from ..numerics.special.alpha_divergences import renyi_of_sum, renyi_terms
from ..registry.reduction import canonicalise
from ..registry.renyi import closed_renyi
from ..registry.shapes import (
    broadcast_batch,
    check_event_shapes,
    nan_rows,
    peel,
    some_tensor,
    sum_events,
)
from ..registry.subclasses import is_a
from ..registry.tensors import promoted
from ..wrappers.circle import check_one_turn
from ..wrappers.masked import both, check_masks, unmasked
from ..wrappers.transformed.rules import without_shared_maps
from . import sums
from .estimate import Estimate
from .kl import kl
from .mixtures import check_operands
from .on_line import TwoDensities, check_is_number, not_on_line, two_densities
from .panel_integrals import integrated
from .rows import missing_rows, rows_of

#: From this log of the integral of p^alpha q^(1 - alpha) on, up and down, it is used itself.
_FAR = 0.5
_SOURCE = "p^alpha q^(1 - alpha) over p's support"
#: An absolute error that suffices where the integrand changes its sign.
_FLOOR = 1e-15


class Found(NamedTuple):
    """A divergence, how it was found, and of an integral the error and the number of nodes."""

    value: Tensor
    method: str
    source: str
    error: Tensor | None = None
    nodes: int = 0

    def changed(self, change: Callable[[Tensor], Tensor]) -> Found:
        """The same change made to the value and to the error."""
        error = None if self.error is None else change(self.error)
        return self._replace(value=change(self.value), error=error)

    def as_estimate(self) -> Estimate:
        zero = torch.zeros_like(self.value.detach())
        return Estimate(
            self.value, zero, self.method, reason=self.source, error=self.error, nodes=self.nodes
        )


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
    check_operands(p, q)
    check_event_shapes(p, q)
    alpha = float(alpha)
    if alpha == 1.0:
        return kl(p, q)
    if 0 < alpha < 0.5:
        # a D(p, q, 1 - a) = (1 - a) D(q, p, a): the terms keep their digits from 1/2 on
        factor = alpha / (1 - alpha)
        return _found(q, p, 1 - alpha).changed(lambda x: factor * x).as_estimate()
    return _found(p, q, alpha).as_estimate()


def _found(p: Distribution, q: Distribution, alpha: float) -> Found:
    """The divergence by the first way that there is."""
    shape = broadcast_batch(p, q)
    if p is q:
        nothing = some_tensor(p).detach().new_zeros(()).expand(shape)
        return Found(torch.where(nan_rows(p), math.nan, nothing), "closed form", "p and q are one")
    (bare_p, p_mask), (bare_q, q_mask) = unmasked(p), unmasked(q)
    if bare_p is not p or bare_q is not q:
        check_masks(p, q, p_mask, q_mask)
        mask = torch.as_tensor(both(p_mask, q_mask))
        inner = _found(bare_p, bare_q, alpha)
        return inner.changed(lambda x: torch.where(mask, x.expand(shape), 0.0))
    closed = closed_renyi(p, q, alpha) if 0 < alpha < math.inf else None
    if closed is not None:
        return Found(closed[0], "closed form", closed[1])
    if is_a(p, Independent) and is_a(q, Independent):
        shared = min(p.reinterpreted_batch_ndims, q.reinterpreted_batch_ndims)
        events = p.event_shape[:shared]
        inner = _found(peel(p, shared), peel(q, shared), alpha)
        return inner.changed(lambda x: sum_events(x, shape, events))
    plain = canonicalise(p), canonicalise(q)
    if plain[0] is not p or plain[1] is not q:
        return _found(*plain, alpha).changed(lambda x: x.expand(shape))
    bases = without_shared_maps(p, q)
    if bases is not None:
        return _found(*bases, alpha).changed(lambda x: x.expand(shape))
    found = _by_sum(p, q, alpha) or _by_integral(p, q, alpha)
    if found is None:
        raise not_on_line("Renyi", p, q)
    return found.changed(lambda x: x.expand(shape).to(promoted((p, q))))


def _by_sum(p: Distribution, q: Distribution, alpha: float) -> Found | None:
    of_p, of_q = sums.discrete(p), sums.discrete(q)
    if of_p is None or of_q is None:
        return None
    if alpha == 0.0:
        value = sums.zeroth_renyi_sum(of_p, of_q)
    elif alpha == math.inf:
        value = sums.greatest_log_ratio(of_p, of_q)
    else:
        value = sums.renyi_sum(of_p, of_q, alpha)
    value = torch.where(nan_rows(p) | nan_rows(q), math.nan, value)
    return Found(value, "exact sum", of_p.family.home)


# --- integrals ----------------------------------------------------------------------------------


def _by_integral(p: Distribution, q: Distribution, alpha: float) -> Found | None:
    check_one_turn(p, q)
    if alpha == math.inf:
        return None
    densities = two_densities(p, q)
    if densities is None:
        return None
    unknown = (missing_rows(p) | missing_rows(q)).expand(densities.shape)
    infinite = densities.apart & ~unknown
    if alpha > 1:
        infinite = ~densities.powers_are_finite(alpha, ~unknown) & ~unknown
    if bool((infinite | unknown).any()):
        found = _of_rows(p, q, ~(infinite | unknown), alpha)
        if found is not None:
            return found._replace(value=torch.where(unknown, math.nan, found.value))
    if not densities.inside and densities.around and 0 < alpha < 1:
        # on q's line, the ends of whose support are inside of p's
        mirrored = _by_integral(q, p, 1 - alpha)
        return mirrored and mirrored.changed(lambda x: alpha / (1 - alpha) * x)
    value, error, nodes = _integral(densities, alpha)
    check_is_number("Renyi", p, q, value, unknown)
    value = torch.where(unknown, math.nan, torch.where(infinite, math.inf, value))
    error = torch.where(infinite | unknown, 0.0, error)
    return Found(value, "quadrature", _SOURCE, error, nodes)


def _of_rows(p: Distribution, q: Distribution, rows: Tensor, alpha: float) -> Found | None:
    """The divergence in some rows, +inf elsewhere; None if the rows cannot be taken out."""
    value = torch.full(rows.shape, math.inf, dtype=torch.float64, device=rows.device)
    index = torch.nonzero(rows.reshape(-1))[:, 0]
    if not index.numel():
        return Found(value, "infinite", "q's tail is too light for p's, or q lacks mass of p's")
    some = rows_of(p, rows.shape, index), rows_of(q, rows.shape, index)
    if some[0] is None or some[1] is None:
        return None
    found = _by_integral(some[0], some[1], alpha)
    assert found is not None
    assert found.error is not None
    error = torch.zeros_like(value).reshape(-1).index_put((index,), found.error)
    value = value.reshape(-1).index_put((index,), found.value)
    return found._replace(value=value.reshape(rows.shape), error=error.reshape(rows.shape))


def _integral(densities: TwoDensities, alpha: float) -> tuple[Tensor, Tensor, int]:
    """Value, error and nodes: from the log of the integral, or near 0 from what it lacks of 1."""
    log_power = densities.log_power(alpha)
    peak = densities.peak(log_power)
    top = torch.where(peak.top.isfinite(), peak.top, 0.0)
    kinks, edges = densities.kinks(), densities.edges()
    whole = integrated(lambda y: [torch.exp(log_power(y) - top)], [peak], kinks, edges=edges)
    total = whole.value[0].clamp(min=1e-300)
    log_total = top + torch.log(total)
    value = log_total / (alpha - 1)
    error = whole.error[0] / total.detach() / abs(1 - alpha)
    near = (log_total.detach().abs() < _FAR).logical_and(torch.tensor(alpha > 0))
    if not bool(near.all()) and alpha > 0:
        # where p's density is off by a factor, so is its power
        error = error + alpha / abs(1 - alpha) * densities.missing_mass(kinks)
    if not bool(near.any()):
        return value, error, whole.nodes

    def terms(y: Tensor) -> list[Tensor]:
        log_p, log_q, _ = densities(y)
        # where both have one support, the terms lack nothing of first order
        covered = renyi_terms(log_p, log_q, alpha)
        term = torch.where(densities.same_support, covered, _signed(log_p, log_q, alpha))
        return [torch.where(near, term, 0.0)]

    peaks = [peak, densities.peak(densities.log_p), densities.peak(densities.log_q)]
    floor = 0.0 if bool(densities.same_support.all()) else _FLOOR
    lack = integrated(terms, peaks, kinks, floor, edges)
    close = renyi_of_sum(lack.value[0], alpha)
    off = lack.error[0] / (1 - (1 - alpha) * lack.value[0].detach())
    nodes = max(whole.nodes, lack.nodes)
    return torch.where(near, close, value), torch.where(near, off, error), nodes


def _signed(log_p: Tensor, log_q: Tensor, alpha: float) -> Tensor:
    """(p - p^a q^(1 - a)) / (1 - a), whose integral is that of the terms as p's is 1."""
    beta = 1 - alpha
    inside = ~(torch.isneginf(log_p) | torch.isneginf(log_q))
    lp, lq = torch.where(inside, log_p, 0.0), torch.where(inside, log_q, 0.0)
    r = beta * (lq - lp)
    near = r.abs() < 1
    power = torch.exp(alpha * lp + beta * lq)
    p = torch.exp(lp)
    value = torch.where(near, -p * torch.expm1(torch.where(near, r, 0.0)), p - power) / beta
    return torch.where(inside, value, torch.exp(log_p) / beta)
