"""The terms of an ELBO: one for each site, in nats."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.distributions import Delta, MaskedDistribution
from pyro.distributions.util import scale_and_mask, sum_rightmost
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    TransformedDistribution,
    kl_divergence,
)
from torch.distributions.transforms import (
    ComposeTransform,
    IndependentTransform,
    Transform,
    identity_transform,
)

from ..registry.shapes import check_event_shapes, peel
from ..registry.subclasses import is_a
from .traces import Site


@dataclass
class Term:
    """What one site adds to the ELBO, for one particle or for all of a vectorized run.

    Attributes:
        name: of the site.
        kind: "likelihood" (observed sites and factors; added), "latent" or "auxiliary"
            (subtracted).
        value: nats, scaled and masked, of the site's batch shape.
        surrogate: what is differentiated in its place.
        frames: the plates that the site is in.
        method: "closed form", "exact sum", "quadrature", "monte carlo", ...
        source: where a reader finds the formula.
        reason: why this method.
        score: the site's score function, where its values are not reparametrised.
        own_cost: whether `value` belongs to the cost of the site's own samples.
        dims: exact KL per element of the event, neither scaled nor masked.
        scale: of the site, as Pyro has collected it.
        mask: of the site.
        shape: of the site's value, batch and event.
    """

    name: str
    kind: str
    value: Tensor
    surrogate: Tensor
    frames: tuple[Any, ...] = ()
    method: str = "monte carlo"
    source: str = ""
    reason: str = ""
    score: Tensor | None = None
    score_frames: tuple[Any, ...] = ()
    own_cost: bool = True
    dims: Tensor | None = None
    scale: Any = 1.0
    mask: Any = None
    shape: tuple[int, ...] = field(default=())

    @property
    def is_exact(self) -> bool:
        """Whether it is the KL of a latent, without a draw of that latent in it."""
        return self.kind == "latent" and not self.own_cost


@dataclass(frozen=True)
class PairKL:
    """An exact KL before scale and mask.

    Attributes:
        dims: nats per element: the batch, and the event dims over which q and p are products.
        event_dims: how many of the rightmost dims of `dims` belong to the event.
    """

    dims: Tensor
    event_dims: int

    @property
    def value(self) -> Tensor:
        """Nats, of the batch shape."""
        return sum_rightmost(self.dims, self.event_dims)


def kl_of_pair(q: Distribution, p: Distribution) -> PairKL:
    """KL(q || p), kept apart for the coordinates that both sides declare independent.

    Raises:
        NotImplementedError: there is no formula.
    """
    check_event_shapes(q, p)
    q = without_identity(q)
    shared = min(_depth(q), _depth(p))
    kl = kl_divergence(peel(q, shared), peel(p, shared))
    if not shared:
        return PairKL(kl, 0)
    batch = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
    return PairKL(kl.expand(batch + p.event_shape[:shared]), shared)


def _depth(distribution: Distribution) -> int:
    return distribution.reinterpreted_batch_ndims if is_a(distribution, Independent) else 0


def without_mask(distribution: Distribution) -> tuple[Distribution, Any]:
    """A distribution without the mask of `.mask(...)`, and that mask; None if there is none."""
    mask: Any = None
    while is_a(distribution, MaskedDistribution):
        mask = distribution._mask if mask is None else mask & distribution._mask
        distribution = distribution.base_dist
    return distribution, None if mask is True else mask


def inner_masks(distribution: Any) -> list[tuple[int, Any]] | None:
    """The masks under a distribution's event, as `distribution.mask(...).to_event(...)` puts them
    there.

    Returns:
        For each its event dims and the mask; None if one is under more than an Independent, where
        what is left of the density is that of no part of the event.
    """
    found: list[tuple[int, Any]] = []
    distribution, _ = without_mask(distribution)
    plain = True
    while not isinstance(distribution, Delta) and hasattr(distribution, "base_dist"):
        plain = plain and is_a(distribution, Independent)
        distribution, mask = without_mask(distribution.base_dist)
        if mask is not None and not plain:
            return None
        if mask is not None:
            found.append((distribution.event_dim, mask))
    return found


def same_inner_masks(q: Distribution, p: Distribution) -> bool:
    """Whether two distributions leave out the same elements of their events."""
    of_q, of_p = inner_masks(q), inner_masks(p)
    if of_q is None or of_p is None or len(of_q) != len(of_p):
        return False
    pairs = zip(of_q, of_p, strict=True)
    return all(a[0] == b[0] and same_setting(a[1], b[1]) for a, b in pairs)


def is_identity(transform: Transform) -> bool:
    """Whether a map leaves every value as it is, by its type alone."""
    if transform is identity_transform:
        return True
    if is_a(transform, ComposeTransform):
        return all(map(is_identity, transform.parts))
    if is_a(transform, IndependentTransform):
        return is_identity(transform.base_transform)
    return False


def without_identity(distribution: Distribution) -> Distribution:
    """The base of a TransformedDistribution that transforms nothing."""
    if type(distribution).__name__ == "TransformedDistribution" and isinstance(
        distribution, TransformedDistribution
    ):
        if all(map(is_identity, distribution.transforms)):
            return distribution.base_dist
    return distribution


def scaled(value: Tensor, site: Site, mask: Any = None) -> Tensor:
    """Nats times the site's scale, zero where it is masked out."""
    return scale_and_mask(value, scale=site["scale"], mask=both_masks(site["mask"], mask))


def both_masks(mask: Any, other: Any) -> Any:
    """What both masks let through."""
    if mask is None or mask is True:
        return other
    if other is None or other is True:
        return mask
    return False if mask is False or other is False else mask & other


def same_setting(a: Any, b: Any) -> bool:
    """Whether two scales or two masks are the same, element by element."""
    if a is b:
        return True
    a, b = (1 if x is None or x is True else 0 if x is False else x for x in (a, b))
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        return bool(a == b)
    return bool((torch.as_tensor(a) == torch.as_tensor(b)).all())
