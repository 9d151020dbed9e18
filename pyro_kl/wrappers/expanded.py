"""ExpandedDistribution: Pyro's view of a law that cannot expand itself, in a larger batch."""

from __future__ import annotations

from pyro.distributions import ExpandedDistribution
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from ..registry.reduction import plainer, reduction, simplified
from ..registry.shapes import broadcast_batch


@plainer(ExpandedDistribution)
def plainer_expanded(law: ExpandedDistribution) -> Distribution:
    """The base itself, expanded by its own means if it has any."""
    base = simplified(law.base_dist)
    if base.batch_shape == law.batch_shape:
        return base
    try:
        expanded = base.expand(law.batch_shape)
    except NotImplementedError:  # a class of torch's that cannot
        expanded = law
    if not isinstance(expanded, ExpandedDistribution):
        return expanded
    return law if base is law.base_dist else ExpandedDistribution(base, law.batch_shape)


@reduction
def by_expansion(p: Distribution, q: Distribution) -> Tensor | None:
    """The KL of what is expanded, expanded."""
    bases = [law.base_dist if isinstance(law, ExpandedDistribution) else law for law in (p, q)]
    if bases[0] is p and bases[1] is q:
        return None
    return kl_divergence(*bases).expand(broadcast_batch(p, q))
