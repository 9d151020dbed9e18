"""Entropies and divergences as sums over atoms, or over the nodes of a fixed quadrature rule."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..numerics.special.alpha_divergences import (
    jensen_shannon_share,
    jensen_shannon_terms,
    renyi_of_sum,
    renyi_terms,
)
from ..registry.at_points import AtPoints, both_at_points
from .found import Found
from .sums import log_power

#: From this log of the sum of p^alpha q^(1 - alpha) on, up and down, it is summed itself.
_FAR = 0.5


def entropy_at_points(p: Distribution) -> Found | None:
    """-sum p log p; None for a class without a rule."""
    found = both_at_points(p, p)
    if found is None:
        return None
    at, home = found
    gone = torch.isneginf(at.log_p)
    log_p = torch.where(gone, 0.0, at.log_p)
    terms = torch.where(gone, 0.0, -at.weight * torch.exp(log_p) * log_p)
    return Found(terms.sum(-1), _method(at), home)


def renyi_at_points(p: Distribution, q: Distribution, alpha: float) -> Found | None:
    """Renyi's divergence of order alpha >= 1/2; None for classes without a rule.

    The error of a quadrature rule is what the rules for p's and for q's mass differ by.
    """
    found = both_at_points(p, q)
    if found is None:
        return None
    at, home = found
    if alpha == math.inf and at.log_weight is not None:
        return None
    value = _greatest(at) if alpha == math.inf else _renyi(at, alpha)
    if at.log_weight is None:
        return Found(value, "exact sum", home)
    other = both_at_points(q, p)
    assert other is not None
    mirrored = _renyi(other[0]._replace(log_p=other[0].log_q, log_q=other[0].log_p), alpha)
    error = (value - mirrored).detach().abs().nan_to_num(nan=0.0, posinf=math.inf)
    return Found(value, "quadrature", home, error, at.log_p.shape[-1])


def _greatest(at: AtPoints) -> Tensor:
    """The largest log p - log q of all atoms of p."""
    gone = torch.isneginf(at.log_p)
    return torch.where(gone, -math.inf, at.log_p - torch.where(gone, 0.0, at.log_q)).amax(-1)


def _renyi(at: AtPoints, alpha: float) -> Tensor:
    power = log_power(at.log_p, at.log_q, alpha)
    if at.log_weight is not None:
        power = power + at.log_weight
    total = power.logsumexp(-1)
    near = total.detach().abs() < _FAR
    terms = at.weight * renyi_terms(at.log_p, at.log_q, alpha)
    lack = terms.sum(-1) + at.q_elsewhere
    close = renyi_of_sum(torch.where(near, lack, 0.0), alpha)
    return torch.where(near, close, total / (alpha - 1))


def jensen_shannon_at_points(p: Distribution, q: Distribution) -> Found | None:
    """Jensen and Shannon's divergence; None for classes without a rule."""
    found = both_at_points(p, q)
    if found is None:
        return None
    at, home = found
    if at.log_weight is None:
        shared = jensen_shannon_terms(at.log_p, at.log_q).sum(-1)
        return Found(shared + 0.5 * math.log(2) * at.q_elsewhere, "exact sum", home)
    other = both_at_points(q, p)
    assert other is not None
    halves = [(x.weight * jensen_shannon_share(x.log_p, x.log_q)).sum(-1) for x in (at, other[0])]
    # both rules have to resolve both densities: each mass that is missed is told
    missed = sum(
        (torch.exp(x.log_p.detach()) * x.weight).sum(-1).sub(1).abs() for x in (at, other[0])
    )
    value = 0.5 * (halves[0] + halves[1])
    return Found(value, "quadrature", home, missed * value.detach(), at.log_p.shape[-1])


def _method(at: AtPoints) -> str:
    return "exact sum" if at.log_weight is None else "quadrature"
