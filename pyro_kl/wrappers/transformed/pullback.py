"""Maps of p are undone on both sides, and maps of q on p.

Under the inverse of torch's `biject_to`, a Dirichlet and an LKJCholesky are products of univariate
distributions: of logits of Betas, the lengths of broken sticks, and of inverse hyperbolic tangents
of partial correlations, which are Betas stretched to (-1, 1).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributions import (
    Beta,
    Dirichlet,
    Distribution,
    Independent,
    LKJCholesky,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
    kl_divergence,
)
from torch.distributions.transforms import (
    AffineTransform,
    CorrCholeskyTransform,
    SigmoidTransform,
    StickBreakingTransform,
    Transform,
)

from ...registry.shapes import broadcast_batch, sum_events
from ...registry.subclasses import class_of, is_a
from .log_odds import partial_correlations, sticks
from .maps import mapped_support, one_to_one, plain_maps
from .rules import base_and_transforms, mapped
from .transform_rules import is_univariate


def pulled_back(q: Any, transform: Transform) -> Distribution | None:
    """The distribution whose image under the map is q; None if it is not known."""
    if class_of(q) is Dirichlet and is_a(transform, StickBreakingTransform):
        a, rest, shift = sticks(q.concentration)
        return _logit_betas(a, rest, AffineTransform(shift, 1.0))
    if class_of(q) is LKJCholesky and is_a(transform, CorrCholeskyTransform):
        b = partial_correlations(q.dim, q.concentration)
        return _logit_betas(b, b, AffineTransform(0.0, 0.5))  # atanh(2 v - 1) = logit(v) / 2
    return None


def _logit_betas(a: Tensor, b: Tensor, affine: AffineTransform) -> Distribution:
    betas = Beta(a, b, validate_args=False)
    on_line = TransformedDistribution(betas, [SigmoidTransform().inv, affine])
    return Independent(on_line, 1, validate_args=False)


def by_pullback(p: Distribution, q: Distribution) -> Tensor | None:
    """Undoes p's last map on both sides, where the distribution with the image q is known."""
    base, maps = base_and_transforms(p)
    before = pulled_back(q, maps[-1]) if maps else None
    if before is None:
        return None
    return kl_divergence(mapped(base, maps[:-1]), before).expand(broadcast_batch(p, q))


def by_moved_map(p: Distribution, q: Distribution) -> Tensor | None:
    """Undoes q's maps on p, where p's support is inside of their image."""
    base, maps = base_and_transforms(q)
    if not maps or not all(is_univariate(t) for t in maps):
        return None
    back = plain_maps([t.inv for t in reversed(maps)])
    if not one_to_one(maps, base.support) or not one_to_one(back, mapped_support(p)):
        return None
    p_base, p_maps = base_and_transforms(p)
    moved = mapped(p_base, plain_maps([*p_maps, *back]))
    return kl_divergence(moved, base).expand(broadcast_batch(p, q))


def by_marginals(p: Distribution, q: Distribution) -> Tensor | None:
    """A multivariate normal, mapped coordinate by coordinate, against a product.

    The KL is the sum of the marginals' KLs plus the total correlation, which no such map changes.
    """
    base: Any
    base, maps = base_and_transforms(p)
    if not is_a(base, (MultivariateNormal, LowRankMultivariateNormal)):
        return None
    if not is_a(q, Independent) or q.base_dist.event_shape:
        return None
    marginal = Normal(base.loc, base.variance.sqrt(), validate_args=False)
    if (
        not maps
        or not all(is_univariate(t) for t in maps)
        or not one_to_one(maps, marginal.support)
    ):
        return None
    correlation = kl_divergence(base, Independent(marginal, 1, validate_args=False))
    kl = kl_divergence(mapped(marginal, maps), q.base_dist)
    shape = broadcast_batch(p, q)
    return sum_events(kl, shape, p.event_shape) + correlation.expand(shape)
