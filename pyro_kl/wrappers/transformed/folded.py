"""FoldedDistribution: the distribution of |x|; its density at x is the base's at x plus at -x."""

from __future__ import annotations

from pyro.distributions import FoldedDistribution
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from ...registry.reduction import canonical, canonicalise, reduction
from ...registry.shapes import broadcast_batch
from .closed_images import named_half, unfolded
from .maps import lives_above


@canonical(FoldedDistribution)
def plainer_folded(distribution: FoldedDistribution) -> Distribution:
    """The base itself where it is never negative, the half of a symmetric family by its name."""
    base = canonicalise(distribution.base_dist)
    if lives_above(base.support, 0.0):
        return base
    half = named_half(base)
    if half is not None:
        return half
    return (
        distribution
        if base is distribution.base_dist
        else FoldedDistribution(base, validate_args=False)
    )


@reduction
def by_unfolding(p: Distribution, q: Distribution) -> Tensor | None:
    """Of two halves of distributions symmetric about 0, the KL of the whole distributions."""
    whole_p, whole_q = unfolded(p), unfolded(q)
    if whole_p is None or whole_q is None:
        return None
    return kl_divergence(whole_p, whole_q).expand(broadcast_batch(p, q))
