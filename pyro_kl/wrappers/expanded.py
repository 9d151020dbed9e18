"""ExpandedDistribution: a larger batch of a distribution that has no `expand` of its own."""

from __future__ import annotations

from pyro.distributions import ExpandedDistribution
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from ..registry.reduction import canonical, canonicalise, reduction
from ..registry.shapes import broadcast_batch


@canonical(ExpandedDistribution)
def plainer_expanded(distribution: ExpandedDistribution) -> Distribution:
    """The base itself, expanded by its own means if it has any."""
    base = canonicalise(distribution.base_dist)
    if base.batch_shape == distribution.batch_shape:
        return base
    try:
        expanded = base.expand(distribution.batch_shape)
    except NotImplementedError:  # a class of torch's that cannot
        expanded = distribution
    if not isinstance(expanded, ExpandedDistribution):
        return expanded
    return (
        distribution
        if base is distribution.base_dist
        else ExpandedDistribution(base, distribution.batch_shape)
    )


@reduction
def by_expansion(p: Distribution, q: Distribution) -> Tensor | None:
    """The KL of what is expanded, expanded."""
    bases = [
        distribution.base_dist if isinstance(distribution, ExpandedDistribution) else distribution
        for distribution in (p, q)
    ]
    if bases[0] is p and bases[1] is q:
        return None
    return kl_divergence(*bases).expand(broadcast_batch(p, q))
