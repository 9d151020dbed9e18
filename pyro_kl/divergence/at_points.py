"""Entropies and divergences as sums over atoms, or over the nodes of a quadrature rule."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..numerics.special.alpha_divergences import (
    jensen_shannon_share,
    jensen_shannon_terms,
    renyi_of_sum,
    renyi_terms,
)
from ..registry.at_points import AtPoints, both_at_atoms, both_at_nodes
from .found import Found
from .sums import log_power

#: From this log of the sum of p^alpha q^(1 - alpha) on, up and down, it is summed itself.
_FAR = 0.5
#: A rule is made finer until two of them differ by less than this, and at most so often.
_CLOSE, _FINEST = 1e-12, 4


def entropy_at_points(p: Distribution) -> Found | None:
    """-sum p log p; None for a class without atoms or a rule."""
    found = both_at_atoms(p, p)
    if found is not None:
        return Found(_entropy(found[0]), "exact sum", found[1])
    return _refined(p, p, lambda at, _: [_entropy(at)])


def renyi_at_points(p: Distribution, q: Distribution, alpha: float) -> Found | None:
    """Renyi's divergence of order alpha, 0 or from 1/2 on; None without atoms or a rule."""
    found = both_at_atoms(p, q)
    if found is not None:
        value = _greatest(found[0]) if alpha == math.inf else _renyi(found[0], alpha)
        return Found(value, "exact sum", found[1])
    if alpha == math.inf:
        return None

    def of_rules(at: AtPoints, mirrored: AtPoints) -> list[Tensor]:
        # p^alpha q^(1 - alpha) is large where p's nodes are dense, or where q's are
        swapped = mirrored._replace(log_p=mirrored.log_q, log_q=mirrored.log_p)
        return [_renyi(at, alpha), _renyi(swapped, alpha)]

    return _refined(p, q, of_rules)


def jensen_shannon_at_points(p: Distribution, q: Distribution) -> Found | None:
    """Jensen and Shannon's divergence; None without atoms or a rule."""
    found = both_at_atoms(p, q) or both_at_atoms(q, p)
    if found is not None:
        at, home = found
        shared = jensen_shannon_terms(at.log_p, at.log_q).sum(-1)
        return Found(shared + 0.5 * math.log(2) * at.q_elsewhere, "exact sum", home)

    def of_rules(at: AtPoints, mirrored: AtPoints) -> list[Tensor]:
        halves = [
            (x.weight * jensen_shannon_share(x.log_p, x.log_q)).sum(-1) for x in (at, mirrored)
        ]
        return [0.5 * (halves[0] + halves[1])]

    return _refined(p, q, of_rules)


def _refined(
    p: Distribution, q: Distribution, of_rules: Callable[[AtPoints, AtPoints], list[Tensor]]
) -> Found | None:
    """A value by a rule for p's mass and one for q's, each made finer until it changes no more.

    Of several values, that which has changed least is taken, row by row; the error is the change.
    """
    before: list[Tensor] | None = None
    value = error = torch.zeros(())
    home, nodes, fineness = "", 0, 1
    while fineness <= _FINEST:
        try:
            found, mirrored = both_at_nodes(p, q, fineness), both_at_nodes(q, p, fineness)
        except NotImplementedError:  # too many nodes: the last change is told
            if fineness <= 2:
                raise
            break
        if found is None or mirrored is None:
            return None
        values, home, nodes = of_rules(found[0], mirrored[0]), found[1], found[0].log_p.shape[-1]
        if before is not None:
            pairs = zip(values, before, strict=True)
            changes = [(x.detach() - y).abs().nan_to_num(posinf=math.inf) for x, y in pairs]
            value, error = values[0], changes[0]
            for other, change in zip(values[1:], changes[1:], strict=True):
                better = change < error
                value, error = (
                    torch.where(better, other, value),
                    torch.where(better, change, error),
                )
            if bool((error <= _CLOSE * (1 + value.detach().abs())).all()):
                break
        before, fineness = [x.detach() for x in values], 2 * fineness
    return Found(value, "quadrature", home, error, nodes)


def _entropy(at: AtPoints) -> Tensor:
    gone = torch.isneginf(at.log_p)
    log_p = torch.where(gone, 0.0, at.log_p)
    return torch.where(gone, 0.0, -at.weight * torch.exp(log_p) * log_p).sum(-1)


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
    # the terms are not negative, but for rounding
    lack = (terms.sum(-1) + at.q_elsewhere).clamp(min=0.0)
    close = renyi_of_sum(torch.where(near, lack, 0.0), alpha)
    return torch.where(near, close, total / (alpha - 1))
