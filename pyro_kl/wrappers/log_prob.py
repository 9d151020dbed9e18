"""log q(x) for any x, also outside of q's support."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import (
    Delta,
    DirichletMultinomial,
    OneOneMatching,
    OneTwoMatching,
    SpanningTree,
)
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    Multinomial,
    TransformedDistribution,
    VonMises,
    constraints,
    transform_to,
)

from ..registry.shapes import any_of_last
from ..registry.tensors import is_foreign
from .transformed.maps import TRANSFORMED

#: Distributions whose values are indices, which must stay integers.
_OF_INDICES = (OneOneMatching, OneTwoMatching, SpanningTree)


def log_prob_anywhere(q: Distribution, x: Tensor) -> Tensor:
    """Log q(x), and -inf where x is outside q's support, with no nan in any gradient.

    It is nan where x or an end of the support is nan. Outside of the support torch raises if the
    distribution validates its arguments, and returns any number if it does not.
    """
    if not x.is_floating_point() and not isinstance(q, _OF_INDICES):
        x = x.to(torch.float64)  # a Categorical's sample: torch's Bernoulli takes no integers
    inside = _inside(q, x)
    if inside is None:
        return q.log_prob(x)
    event_mask = inside.reshape(inside.shape + (1,) * len(q.event_shape))
    log_q = q.log_prob(torch.where(event_mask, x, _point_inside(q, x)))
    return torch.where(inside, log_q, torch.where(_nowhere(q, x), math.nan, -math.inf))


def _inside(q: Any, x: Tensor) -> Tensor | None:
    """Where x is in q's support; None if q does not declare one."""
    try:
        support = q.support
    except NotImplementedError:
        return None
    if support is None or isinstance(q, Delta):
        return None  # a Delta's log_prob is -inf outside of its point by itself
    inside = support.check(x)
    if type(q) in TRANSFORMED and not is_foreign(q):  # an image may be larger than the base's
        within = _inside(q.base_dist, _before(q, x))
        if within is not None:
            extra = within.dim() - inside.dim()
            inside = inside & (within.all(tuple(range(-extra, 0))) if extra > 0 else within)
    if isinstance(q, Multinomial | DirichletMultinomial):  # torch lets a smaller total pass
        inside = inside & (x.sum(-1) == q.total_count)
    if isinstance(q, TransformedDistribution) and isinstance(q.base_dist, VonMises):
        inside = inside & (_before(q, x).abs() <= math.pi)  # torch calls any number an angle
    return inside


def _nowhere(q: Any, x: Tensor) -> Tensor:
    """Where x or an end of q's support is nan, so that x is neither inside nor outside."""
    missing = any_of_last(x.isnan(), len(q.event_shape))
    support: Any = q.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    for name in ("lower_bound", "upper_bound"):
        end = getattr(support, name, None)
        if isinstance(end, Tensor):
            missing = missing | any_of_last(end.isnan(), min(end.dim(), len(q.event_shape)))
    return missing


def _before(q: Any, x: Tensor) -> Tensor:
    """The point of the base whose image is x."""
    with torch.no_grad():
        for transform in reversed(q.transforms):
            x = transform.inv(x)
    return x


def _point_inside(q: Any, x: Tensor) -> Tensor:
    """Some point in q's support, of x's shape or broadcasting to it."""
    if type(q) in TRANSFORMED:
        y = _point_inside(q.base_dist, _before(q, x))
        for transform in q.transforms:
            y = transform(y)
        return y
    support = q.support
    assert support is not None
    if support.is_discrete and support.event_dim == 1 and not isinstance(q, Independent):
        # the last category has all counts
        last = torch.zeros(x.shape[-1:], dtype=x.dtype, device=x.device)
        last[-1] = getattr(q, "total_count", 1)
        return last
    if support.is_discrete:
        return torch.as_tensor(_lowest(support), dtype=x.dtype, device=x.device)
    try:
        to_support = transform_to(support)
    except NotImplementedError:
        return x
    # off 0, which a map such as |x| takes to an end of its image
    return to_support(x.new_full(to_support.inverse_shape(x.shape), 0.5))


def _lowest(support: constraints.Constraint) -> Tensor | float:
    base = getattr(support, "base_constraint", support)
    return getattr(base, "lower_bound", 0.0)
