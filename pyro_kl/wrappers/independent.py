"""Independent and ExpandedDistribution: products of distributions, and larger batches of one."""

from __future__ import annotations

import torch
from pyro.distributions import Delta, ExpandedDistribution, MaskedDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from ..registry.pair import Case
from ..registry.reduction import canonical, canonicalise
from ..registry.register import register
from ..registry.shapes import as_delta, broadcast_batch, normals, peel, sum_events
from ..registry.subclasses import is_a


@canonical(Independent)
def canonical_independent(distribution: Independent) -> Distribution:
    """A product over at least one dimension, neither of a product nor of points."""
    base, ndims = canonicalise(distribution.base_dist), distribution.reinterpreted_batch_ndims
    if is_a(base, Independent):
        base, ndims = base.base_dist, ndims + base.reinterpreted_batch_ndims
    if ndims == 0:
        return base
    if is_a(base, MaskedDistribution) and base._mask is False:
        inner = Independent(base.base_dist, ndims, validate_args=False)
        return MaskedDistribution(inner, False)
    if base is not distribution.base_dist:
        distribution = Independent(base, ndims, validate_args=False)
    return (as_delta(distribution) or distribution) if is_a(base, Delta) else distribution


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


# --- ExpandedDistribution -----------------------------------------------------------------------


@canonical(ExpandedDistribution)
def canonical_expanded(distribution: ExpandedDistribution) -> Distribution:
    """The base, expanded by its own method if it has one."""
    base = canonicalise(distribution.base_dist)
    if base.batch_shape == distribution.batch_shape:
        return base
    try:
        expanded = base.expand(distribution.batch_shape)
    except NotImplementedError:  # a class of torch's that cannot
        expanded = distribution
    if not isinstance(expanded, ExpandedDistribution):
        return expanded
    if base is distribution.base_dist:
        return distribution
    return ExpandedDistribution(base, distribution.batch_shape)


def by_expansion(p: Distribution, q: Distribution) -> Tensor | None:
    """The KL of the bases, expanded."""
    bases = [x.base_dist if isinstance(x, ExpandedDistribution) else x for x in (p, q)]
    if bases[0] is p and bases[1] is q:
        return None
    return kl_divergence(*bases).expand(broadcast_batch(p, q))
