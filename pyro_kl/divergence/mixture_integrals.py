"""KL of univariate mixtures: Gauss and Legendre's rule on panels around every component."""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor
from torch.distributions import Distribution

from ..numerics.quadrature.integrate import Integral, requested_tolerance, short_of
from ..registry.family import Family
from ..registry.register import family_of
from ..registry.shapes import broadcast_batch
from ..wrappers.log_prob import log_prob_anywhere
from .mixtures import components, is_mixture

#: Panels end so many widths from each component's centre.
_ENDS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 11.0, 16.0, 23.0, 32.0, 40.0)
_NODES = 32


def kl_of_mixture(p: Distribution, q: Distribution) -> Integral | None:
    """KL(p || q) if one of two univariate distributions is a mixture of declared families; None if
    not.

    However narrow a component of either is, it has nodes of its own. The error is the difference
    to the rule with half of the nodes.
    """
    if p.event_shape or q.event_shape or not (is_mixture(p) or is_mixture(q)):
        return None
    shape = broadcast_batch(p, q)
    families = [family_of(type(components(distribution)[1])) for distribution in (p, q)]
    if not all(family and _is_light(family) for family in families):
        return None
    with torch.no_grad():
        own, other = (x.expand(*shape, x.shape[-1]) for x in map(_panel_ends, (p, q)))
        low, high = own.amin(-1, keepdim=True), own.amax(-1, keepdim=True)
        cuts = torch.cat((own, other), -1).clamp(min=low, max=high).sort(-1).values
    value, error = (_sum(p, q, cuts, n) for n in (_NODES, _NODES // 2))
    error = (value - error).detach().abs() + 1e-14
    nodes = _NODES * (cuts.shape[-1] - 1)
    return Integral(value, error, nodes, short_of(value.detach(), error, requested_tolerance()))


def _sum(p: Distribution, q: Distribution, cuts: Tensor, n: int) -> Tensor:
    nodes, weights = (torch.as_tensor(x, dtype=cuts.dtype) for x in leggauss(n))
    length = cuts[..., 1:] - cuts[..., :-1]
    y = cuts[..., :-1].unsqueeze(-1) + length.unsqueeze(-1) * (nodes + 1) / 2
    x = y.flatten(-2).movedim(-1, 0)  # nodes in front of the batch
    log_p = _log_density(p, x)
    d = log_p - _log_density(q, x)
    mass = torch.exp(log_p)
    gone = mass == 0  # and what is nan is not
    terms = torch.where(gone, 0.0, mass * torch.where(gone, 0.0, d))
    weight = (length.unsqueeze(-1) * weights / 2).flatten(-2).movedim(-1, 0)
    return (terms * weight).sum(0)


def _log_density(distribution: Distribution, x: Tensor) -> Tensor:
    """Log density in float64: weights in float32 do not sum to 1, which is no KL's to count."""
    log_weights, parts = components(distribution)
    family = family_of(type(parts))
    assert family is not None
    build: Any = family.distribution
    given = {name: value.to(torch.float64) for name, value in family.of(parts).items()}
    log_parts = log_prob_anywhere(build(**given, validate_args=False), x.unsqueeze(-1))
    return (log_weights.to(torch.float64).log_softmax(-1) + log_parts).logsumexp(-1)


def _is_light(family: Family) -> bool:
    """Whether its tails, on the whole line, are such that no KL to another such is infinite."""
    line = family.line
    whole = family.support.low == -math.inf and family.support.high == math.inf
    return (
        line is not None
        and whole
        and line.index == (math.inf, math.inf)
        and line.exponential == (0.0, 0.0)
    )


def _panel_ends(distribution: Distribution) -> Tensor:
    """Where the panels of all of a distribution's components end, (..., K panels)."""
    _, parts = components(distribution)
    family = family_of(type(parts))
    assert family is not None
    assert family.line is not None
    given = {k: v.detach().to(torch.float64) for k, v in family.of(parts).items()}
    centre, width = family.line.centre(**given), family.line.width(**given)
    steps = torch.tensor([*(-z for z in reversed(_ENDS[1:])), *_ENDS], dtype=torch.float64)
    y = centre.unsqueeze(-1) + width.unsqueeze(-1) * steps
    ends = family.line.at(y, **{k: v.unsqueeze(-1) for k, v in given.items()}).x
    return ends.expand(*parts.batch_shape, len(steps)).flatten(-2)
