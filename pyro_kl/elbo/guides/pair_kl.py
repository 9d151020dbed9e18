"""KL(q || p) of the two distributions of a latent, element by element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pyro.distributions import MaskedDistribution
from pyro.distributions.util import sum_rightmost
from pyro.util import ignore_jit_warnings
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LogNormal,
    Normal,
    TransformedDistribution,
    biject_to,
    kl_divergence,
)
from torch.distributions.transforms import ExpTransform

from ...numerics.concrete import is_recorded
from ...numerics.dtypes import common_shape
from ...registry.shapes import broadcast_batch, check_event_shapes, peel
from ...registry.subclasses import is_a
from ...wrappers.masked import unmasked
from ...wrappers.transformed.maps import plain_maps

#: Roundings by which a draw may be off its image: those of a product of matrices.
_ROUNDING = 64


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


class Support:
    """The map from unconstrained values to a prior's support, as `biject_to` makes it.

    Attributes:
        constraint: the support.
        transform: the map.
        event_dim: how many dims of an unconstrained value the map takes together.
        keeps_shape: whether it maps number by number.
        is_identity: whether every value is its own image.
        is_exp: whether the map is exp, so that the image of a Normal is a LogNormal.
    """

    def __init__(self, constraint: Any) -> None:
        self.constraint = constraint
        self.transform: Any = biject_to(constraint)
        self.event_dim: int = self.transform.domain.event_dim
        self.keeps_shape = not self.event_dim and not self.transform.codomain.event_dim
        maps = plain_maps([self.transform])
        self.is_identity = not maps
        self.is_exp = len(maps) == 1 and type(maps[0]) is ExpTransform


class Normals(NamedTuple):
    """A batch of Normals by its parameters: to make torch's object takes as long as a KL."""

    loc: Tensor
    scale: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        """As of the distribution."""
        return common_shape(self.loc.shape, self.scale.shape)

    @property
    def event_shape(self) -> torch.Size:
        """Of numbers."""
        return torch.Size()

    @property
    def distribution(self) -> Normal:
        """Torch's object."""
        return Normal(self.loc, self.scale, validate_args=False)


class UnivariatePair(NamedTuple):
    """Two batches of univariate distributions, whose KLs can be computed with those of others.

    Attributes:
        drawn: what the guide draws from, a distribution or `Normals`.
        p: of the model.
        event_dims: how many of the rightmost dims of the batch are dims of the site's event.
        excess: nats per element to be added, or None.
        support: maps what is drawn to the site; None if it is the site.
    """

    drawn: Any
    p: Any
    event_dims: int
    excess: Tensor | None = None
    support: Support | None = None

    @property
    def families(self) -> tuple[type, type]:
        """The classes of q and p, without q itself; the parameters of q are those of `drawn`."""
        if self.support is None:
            q = Normal if isinstance(self.drawn, Normals) else type(self.drawn)
            return q, type(self.p)
        return LogNormal if self.support.is_exp else TransformedDistribution, type(self.p)

    @property
    def q(self) -> Distribution:
        """The guide's distribution of the site."""
        if self.support is not None and self.support.is_exp:
            return LogNormal(self.drawn.loc, self.drawn.scale, validate_args=False)
        drawn = self.drawn.distribution if isinstance(self.drawn, Normals) else self.drawn
        if self.support is None:
            return drawn
        return TransformedDistribution(drawn, [self.support.transform], validate_args=False)

    @property
    def shape(self) -> torch.Size:
        """Shape of the KL per element."""
        return broadcast_batch(self.drawn, self.p)

    def kl(self) -> PairKL:
        """The KL of this pair alone.

        Raises:
            NotImplementedError: there is no formula.
        """
        dims, shape = kl_divergence(self.q, self.p), self.shape
        if is_recorded() or dims.shape != shape:  # sizes are tensors while they are recorded
            dims = dims.expand(shape)
        return PairKL(dims if self.excess is None else dims + self.excess, self.event_dims)


class Prior:
    """A prior without its mask and its Independent, with the map to its support.

    Args:
        distribution: of the site in the model.
        known: the support of an earlier run, which is kept where the support is the same object.

    Attributes:
        distribution: as given.
        base: the prior of one element of the site's event.
        depth: how many dims the Independent takes from the batch to the event.
        support: of `base`.
        is_univariate: whether each element of the site is a number of its own.
    """

    def __init__(self, distribution: Distribution, known: Support | None = None) -> None:
        self.distribution = distribution
        if isinstance(distribution, MaskedDistribution):
            distribution, _ = unmasked(distribution)
        self.depth = 0
        if is_a(distribution, Independent):
            self.depth = distribution.reinterpreted_batch_ndims
            distribution = distribution.base_dist
        self.base: Any = distribution
        constraint = self.base.support
        if known is None or known.constraint is not constraint:
            known = Support(constraint)
        self.support = known
        self.is_univariate = not known.event_dim and not self.base.event_shape

    @property
    def event_dim(self) -> int:
        """How many rightmost dims of an unconstrained value belong to one event."""
        return self.depth + self.support.event_dim

    def unconstrained_shape(self, value: Tensor) -> torch.Size:
        """Shape of the unconstrained value whose image is `value`."""
        if self.support.keeps_shape:
            return value.shape
        return torch.Size(self.support.transform.inverse_shape(value.shape))

    def is_image(self, value: Tensor, unconstrained: Tensor) -> bool:
        """Whether `value` is the image of `unconstrained`, which has the shape for it.

        A guide that computes its draw in another order of operations rounds otherwise.
        """
        if self.support.is_identity and unconstrained.data_ptr() == value.data_ptr():
            return True
        image = self.support.transform(unconstrained.detach())
        if torch.equal(image, value):
            return True
        rounding = _ROUNDING * torch.finfo(value.dtype).eps
        largest = torch.maximum(image.abs(), unconstrained.detach().abs().max())
        return image.shape == value.shape and bool(
            ((image - value).abs() <= rounding * largest).all()
        )

    def univariate_pair(
        self, normal: Normal | Normals, excess: Tensor | None = None
    ) -> UnivariatePair | None:
        """The image of a Normal, and the prior; None if the prior is not univariate."""
        if not self.is_univariate:
            return None
        support = None if self.support.is_identity else self.support
        return UnivariatePair(normal, self.base, self.depth, excess, support)

    def image_kl(self, normal: Normal) -> PairKL:
        """KL(image of a product of Normals || prior).

        Args:
            normal: in the shape of the unconstrained value.

        Raises:
            NotImplementedError: there is no formula.
        """
        pair = self.univariate_pair(normal)
        if pair is not None:
            return pair.kl()
        event_dim = self.support.event_dim
        if event_dim and is_recorded():
            _fix_shape(normal)
        q: Any = Independent(normal, event_dim, validate_args=False) if event_dim else normal
        if not self.support.is_identity:
            q = TransformedDistribution(q, [self.support.transform], validate_args=False)
        # a support of numbers may be that of vectors, as of ImproperUniform(real, (), (2,))
        rest = len(self.base.event_shape) - len(q.event_shape)
        if rest > 0:
            q = Independent(q, rest, validate_args=False)
        pair_kl = kl_of_pair(q, self.base)
        kept = normal.loc.dim() - event_dim - max(rest, 0)
        shape = common_shape(normal.loc.shape[:kept], self.base.batch_shape)
        dims = pair_kl.dims
        shape = shape + dims.shape[dims.dim() - pair_kl.event_dims :]
        if is_recorded() or dims.shape != shape:
            dims = dims.expand(shape)
        return PairKL(dims, pair_kl.event_dims + self.depth)


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
    batch = common_shape(q.batch_shape, p.batch_shape)
    return PairKL(kl.expand(batch + p.event_shape[:shared]), shared)


def _depth(distribution: Any) -> int:
    return distribution.reinterpreted_batch_ndims if is_a(distribution, Independent) else 0


def without_identity(distribution: Any) -> Any:
    """The base of a TransformedDistribution that maps every value to itself."""
    bare = type(distribution).__name__ == "TransformedDistribution"
    if bare and not plain_maps(distribution.transforms):
        return distribution.base_dist
    return distribution


def _fix_shape(distribution: Any) -> None:
    """Make the sizes of a traced distribution plain numbers: maps of vectors compute with them."""
    with ignore_jit_warnings():
        distribution._batch_shape = torch.Size([int(size) for size in distribution.batch_shape])
