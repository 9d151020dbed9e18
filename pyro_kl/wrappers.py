"""Rules for wrapped laws: they call `kl_divergence` again, or evaluate a density at a point."""

from __future__ import annotations

from functools import partial

import torch
from pyro.distributions import Delta
from pyro.distributions import Distribution as PyroDistribution
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    Normal,
    TransformedDistribution,
    kl_divergence,
)
from torch.distributions.transforms import TanhTransform

from .densities import log_prob_anywhere
from .pair import Case
from .registry import no_formula, register, upstream_formula
from .shapes import as_delta, broadcast_batch, normals, peel, sum_events


@register(
    Independent,
    Independent,
    cases=[Case({"loc": [1.0, 0.0], "scale": [1.0, 1.0]}, {"loc": [0.0, 2.0], "scale": 1.0}, 2.5)],
    finite="the coordinates' KLs are",
    reference="Cover & Thomas (2006), sec. 2.5: chain rule",
    method="rule",
    replaces="torch sums what is left after a silent broadcast of the event shapes, raises where "
    "the two depths differ, and loses batch dims of infinite coordinates",
    make_p=normals,
    make_q=lambda loc, scale: normals(loc, torch.full_like(loc, scale)),
)
def kl_independent_independent(p: Independent, q: Independent) -> Tensor:
    """KL of two products: the sum over what both sides declare independent."""
    shape = broadcast_batch(p, q)
    if (point := as_delta(p)) is not None:
        return kl_divergence(point, q)
    shared = min(p.reinterpreted_batch_ndims, q.reinterpreted_batch_ndims)
    kl = kl_divergence(peel(p, shared), peel(q, shared))
    return sum_events(kl, shape, p.event_shape[:shared])


_of_point = partial(
    register,
    cases=[Case({"v": 1.0, "log_density": 2.0}, {"loc": 0.0, "scale": 1.0}, 3.4189385332046727)],
    finite="q has mass at v",
    reference="Pyro's convention: a Delta has density exp(log_density) at v",
    method="point density",
    replaces="Pyro drops log_density, where autoguides keep the Jacobian of a constrained site",
    make_q=Normal,
)


@_of_point(Delta, PyroDistribution)
@_of_point(Delta, Distribution)  # torch's classes are not Pyro's
def kl_delta(p: Delta, q: Distribution) -> Tensor:
    """log_density - log q(v), as if p had the density exp(log_density) at its only point.

    It is what an autoguide's site contributes to the ELBO; +inf where v is outside q's support.
    """
    shape = broadcast_batch(p, q)
    return (p.log_density - log_prob_anywhere(q, p.v)).expand(shape)


@register(
    TransformedDistribution,
    TransformedDistribution,
    cases=[Case({"loc": 0.0, "scale": 2.0}, {"loc": 0.0, "scale": 2.0}, 0.0)],
    finite="the bases' KL is",
    reference="a shared injective map leaves the KL unchanged",
    method="rule",
    replaces="torch's rule, called here, raises an empty NotImplementedError",
    make_p=lambda loc, scale: TransformedDistribution(Normal(loc, scale), TanhTransform()),
    make_q=lambda loc, scale: TransformedDistribution(Normal(loc, scale), TanhTransform()),
)
def kl_transformed_transformed(p: TransformedDistribution, q: TransformedDistribution) -> Tensor:
    """KL of two laws under one map: that of their bases; torch's own rule, with a clear error."""
    try:
        return upstream_formula(TransformedDistribution, TransformedDistribution)(p, q)
    except NotImplementedError:
        raise no_formula(p, q) from None
