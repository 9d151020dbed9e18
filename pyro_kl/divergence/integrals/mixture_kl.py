"""KL of univariate mixtures: Gauss and Legendre's rule on panels around every component."""

from __future__ import annotations

import math

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor
from torch.distributions import Distribution

from ...numerics.quadrature.integrate import Integral, requested_tolerance, short_of
from ...registry.line import from_line
from ...registry.shapes import broadcast_batch
from ...wrappers.transformed.distribution_line import DistributionLine
from ...wrappers.transformed.line_of import line_of
from ..mixtures import components, is_mixture

#: Panels end so many widths from each component's centre.
_ENDS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 11.0, 16.0, 23.0, 32.0, 40.0)
_NODES = 32


class _Components:
    """The components of a mixture on their lines, and their weights."""

    def __init__(self, distribution: Distribution) -> None:
        log_weights, parts = components(distribution)
        # weights in float32 do not sum to 1
        self.log_weights = log_weights.to(torch.float64).log_softmax(-1)
        self.line = line_of(parts)
        self.shape = parts.batch_shape

    def log_density(self, x: Tensor) -> Tensor:
        assert self.line is not None
        point = from_line(x.unsqueeze(-1))
        log_parts = self.line.log_density(point, *self.line.tensors)
        return (self.log_weights + log_parts).logsumexp(-1)

    def panel_ends(self) -> Tensor:
        """Where the panels of all components end, (..., panels)."""
        assert self.line is not None
        assert self.line.mass is not None
        centre, width = self.line.mass().scale(*self.line.tensors)
        steps = torch.tensor([*(-z for z in reversed(_ENDS[1:])), *_ENDS]).to(centre)
        ends = centre.unsqueeze(-1) + width.unsqueeze(-1) * steps
        return ends.expand(*self.shape, len(steps)).flatten(-2)


def kl_of_mixture(p: Distribution, q: Distribution) -> Integral | None:
    """KL(p || q) if one of two univariate distributions is a mixture of declared families; None if
    not.

    Every component of both has nodes of its own, however narrow it is. The error is the difference
    to the rule with half of the nodes.
    """
    if p.event_shape or q.event_shape or not (is_mixture(p) or is_mixture(q)):
        return None
    shape = broadcast_batch(p, q)
    of_p, of_q = _Components(p), _Components(q)
    if not (_is_light(of_p.line) and _is_light(of_q.line)):
        return None
    with torch.no_grad():
        own, other = (x.panel_ends() for x in (of_p, of_q))
        own, other = (x.expand(*shape, x.shape[-1]) for x in (own, other))
        low, high = own.amin(-1, keepdim=True), own.amax(-1, keepdim=True)
        ends = torch.cat((own, other), -1).clamp(min=low, max=high).sort(-1).values
    value, error = (_sum(of_p, of_q, ends, n) for n in (_NODES, _NODES // 2))
    error = (value - error).detach().abs() + 1e-14
    nodes = _NODES * (ends.shape[-1] - 1)
    return Integral(value, error, nodes, short_of(value.detach(), error, requested_tolerance()))


def _is_light(line: DistributionLine | None) -> bool:
    """Whether the tails, on the whole line, are so light that the KL to another such is finite."""
    if line is None or line.mass is None or not line.mass().is_whole_line:
        return False
    assert line.tails is not None
    return all(tail.index == math.inf and tail.growth != math.inf for tail in line.tails)


def _sum(of_p: _Components, of_q: _Components, ends: Tensor, n: int) -> Tensor:
    nodes, weights = (torch.as_tensor(x, dtype=ends.dtype) for x in leggauss(n))
    length = ends[..., 1:] - ends[..., :-1]
    y = ends[..., :-1].unsqueeze(-1) + length.unsqueeze(-1) * (nodes + 1) / 2
    x = y.flatten(-2).movedim(-1, 0)  # nodes in front of the batch
    log_p = of_p.log_density(x)
    d = log_p - of_q.log_density(x)
    mass = torch.exp(log_p)
    gone = mass == 0  # and what is nan is not
    terms = torch.where(gone, 0.0, mass * torch.where(gone, 0.0, d))
    weight = (length.unsqueeze(-1) * weights / 2).flatten(-2).movedim(-1, 0)
    return (terms * weight).sum(0)
