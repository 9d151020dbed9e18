"""Joint Gaussian guides: the KL of each site by the chain rule.

All latents are packed into one u ~ N(mean, L L'), in the order of the model's sites. Then

    KL(q || p) = sum_k E KL(q(u_k | u_<k) || p(u_k | parents)),   u_k | u_<k ~ N(m_k, L_kk L_kk')

needs one solve with L, which carries no gradient. It is valid for any dependences in the
model, since parents come first. Where the cross-entropy against the prior is a sum over
coordinates (the prior is a product, or a Dirichlet, or an LKJ), the KL of a block is that of its
marginals N(m_j, s_j^2) plus sum_j log(s_j / L_jj), which is its inner correlation. Where a site
has no parents at all, the expectation over u_<k is exact too: it takes marginals of the whole
instead of conditionals, with the same correction. Such sites have no variance; the others are
Rao-Blackwellised.

Reference: Cover & Thomas (2006), Elements of Information Theory, sec. 2.5 (chain rule).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal

from ...numerics.concrete import is_recorded
from ..traces import Site, Trace, Traces
from .gaussian_blocks import GaussianBlock, diagonal, read_joint
from .guide_site import ImageSite
from .pair_kl import Normals, PairKL, Prior, UnivariatePair, kl_of_pair

#: Priors on a space of more than one dimension against which log p is a sum over coordinates of u.
_COORDINATEWISE = (dist.Dirichlet, torch.distributions.Dirichlet, dist.LKJCholesky)


def product_kl(
    block: GaussianBlock, prior: Prior, shape: Sequence[int], batch: Sequence[int]
) -> PairKL:
    """KL(image of a Gaussian block || prior), its coordinates arranged as the site's value.

    Args:
        block: the Gaussian, or a batch of them.
        prior: the site's in the model.
        shape: of the site's unconstrained value.
        batch: of the site that draws the Gaussian, to which its coordinates are added.

    Raises:
        NotImplementedError: the prior ties coordinates together and is no multivariate Normal, or
            there is no formula for a coordinate.
    """
    normal, excess = _arranged(block, prior, shape, batch)
    pair = prior.univariate_pair(normal, excess)
    if pair is not None:
        return pair.kl()
    if isinstance(prior.base, MultivariateNormal) and block.scale.shape[-1] == shape[-1]:
        return _multivariate_kl(block, normal, prior)
    tied = prior.support.event_dim
    if tied and not isinstance(prior.base, _COORDINATEWISE):
        raise NotImplementedError(
            f"{type(prior.base).__name__} ties the coordinates of a correlated guide together"
        )
    image = prior.image_kl(normal.distribution)
    if excess is None:
        return image
    return replace(image, dims=image.dims + sum_rightmost(excess, tied))


def _arranged(
    block: GaussianBlock, prior: Prior, shape: Sequence[int], batch: Sequence[int]
) -> tuple[Normals, Tensor | None]:
    """A block's coordinates as Normals, and the excess, arranged as the site's value."""

    def arranged(x: Tensor) -> Tensor:
        if not batch and not is_recorded() and x.shape == shape:
            return x
        return x.reshape(_narrow(shape, batch, x.shape[:-1], prior.event_dim))

    excess = None if block.excess is None else arranged(block.excess)
    return Normals(arranged(block.loc), arranged(block.scale)), excess


def _narrow(
    wide: Sequence[int], batch: Sequence[int], own: Sequence[int], event_dim: int
) -> tuple[int, ...]:
    """The shape `wide`, with 1 for the dims of `batch` that a parameter does not have.

    Args:
        wide: shape of a site's unconstrained value, its batch and `event_dim` more dims.
        batch: of the joint site: a part of the site's batch.
        own: batch shape of the parameter.
        event_dim: of the unconstrained value.
    """
    shape = list(wide)
    own = (1,) * (len(batch) - len(own)) + tuple(own)
    for i, (size, kept) in enumerate(zip(reversed(batch), reversed(own), strict=True)):
        if size != kept:
            shape[len(shape) - event_dim - 1 - i] = 1
    return tuple(shape)


def _multivariate_kl(block: GaussianBlock, normal: Normals, prior: Prior) -> PairKL:
    """KL of correlated blocks against a multivariate Normal prior, one block for each vector."""
    shape, tril = normal.scale.shape, block.tril()
    excess = (diagonal(tril).log() - block.log_diagonal()).sum(-1).reshape(shape[:-1])
    tril = tril.reshape((*shape, shape[-1]))
    q = MultivariateNormal(normal.loc, scale_tril=tril, validate_args=False)
    pair = kl_of_pair(q, prior.base)
    return PairKL(pair.dims + excess, pair.event_dims + prior.depth)


@dataclass
class JointBlock(ImageSite):
    """A site's slice of a jointly Gaussian auxiliary site.

    Attributes:
        start: first coordinate.
        stop: one past the last coordinate.
        order: place among the sites of the same auxiliary site.
        sizes: numbers of coordinates of all sites of the same auxiliary site.
        has_parents: whether the site's prior may depend on other latents.
    """

    start: int
    stop: int
    order: int
    sizes: tuple[int, ...]
    has_parents: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.word = "exact marginal of the joint guide"
        if self.has_parents and self.order > 0:
            self.word = "Rao-Blackwellised: exact given the sites before it"

    def holds(self, traces: Traces) -> bool:
        """Whether the Delta is the image of the slice."""
        aux = traces.guide.nodes[self.auxiliary]
        if self.sizes and aux["value"].shape[-1] != sum(self.sizes):
            return False
        part = aux["value"][..., self.start : self.stop]
        return self.has_image(part, traces)

    def _block(self, guide_trace: Trace) -> GaussianBlock:
        """The Gaussian of the slice."""
        conditional = self.has_parents and self.order > 0
        aux = guide_trace.nodes[self.auxiliary]
        return _joint_of(aux, self.sizes).block(self.start, self.stop, conditional)

    def univariate_pair(self, traces: Traces) -> UnivariatePair | None:
        """The coordinates' images, and the prior, if that is a product of univariate ones."""
        prior = self.prior(traces.model)
        if not prior.is_univariate:
            return None
        arranged = _arranged(self._block(traces.guide), prior, *self.shapes(prior, traces.guide))
        return prior.univariate_pair(*arranged)

    def kl(self, traces: Traces) -> PairKL:
        """KL of the block against the prior, with the correlation inside of the block."""
        prior = self.prior(traces.model)
        return product_kl(self._block(traces.guide), prior, *self.shapes(prior, traces.guide))

    def log_q(self, guide_trace: Trace) -> list[tuple[Tensor, Site]]:
        """log q(u_k | u_<k), and the Jacobian that the Delta carries."""
        aux, site = guide_trace.nodes[self.auxiliary], guide_trace.nodes[self.name]
        joint = _joint_of(aux, self.sizes)
        block = joint.block(self.start, self.stop, conditional=True)
        log_q = block.log_q(aux["value"][..., self.start : self.stop])
        jacobian = site["unscaled_log_prob"]
        # the coordinates of one element of the site's batch belong together
        wide = (*aux["value"].shape[:-1], self.stop - self.start)
        return [(_to_batch(log_q.expand(wide), jacobian.shape), aux), (jacobian, site)]


def _to_batch(per_coordinate: Tensor, batch: torch.Size) -> Tensor:
    """Sum coordinates (..., n) to the elements of a site's batch that they belong to."""
    return per_coordinate.reshape((*batch, -1)).sum(-1)


def _joint_of(aux: Site, sizes: Sequence[int]) -> Any:
    """The Gaussian of a joint site, kept with the trace so that its blocks share the work."""
    if "pyro_kl_joint" not in aux:
        aux["pyro_kl_joint"] = read_joint(aux["fn"], aux["value"], sizes)
    return aux["pyro_kl_joint"]


def joint_blocks(auxiliary: str, members: Sequence[str], traces: Traces) -> list[JointBlock]:
    """The slices of a joint site whose images are the Deltas after it.

    Args:
        auxiliary: a site of the guide whose value is a vector.
        members: the Deltas after it, in the guide's order; one that is no image of the next
            slice is passed over.
        traces: of model and guide.

    Raises:
        NotImplementedError: the distribution is not one of the Gaussians of `read_joint`, or some
            of its coordinates belong to no Delta.
    """
    aux = traces.guide.nodes[auxiliary]
    value, distribution = aux["value"], aux["fn"]
    if read_joint(distribution, value) is None:
        raise NotImplementedError(
            f"its distribution, {_name(distribution)}, is no Normal over a vector, "
            "MultivariateNormal or LowRankMultivariateNormal"
        )
    blocks: list[JointBlock] = []
    start, batch = 0, value.shape[:-1]
    for name in members:
        size = _coordinates(traces.model.nodes[name], traces.guide.nodes[name]["value"], batch)
        block = JointBlock(name, auxiliary, start, start + size, len(blocks), ())
        if size and block.stop <= value.shape[-1] and block.holds(traces):
            blocks.append(block)
            start = block.stop
    if start < value.shape[-1]:
        raise NotImplementedError(
            f"coordinate {start} of {value.shape[-1]} is not, mapped to the support of a site, "
            "the value of that site"
        )
    sizes = tuple(block.stop - block.start for block in blocks)
    return [replace(block, sizes=sizes) for block in blocks]


def _name(distribution: Distribution) -> str:
    inner = (
        f"({type(distribution.base_dist).__name__})"
        if isinstance(distribution, Independent)
        else ""
    )
    return type(distribution).__name__ + inner


def _coordinates(site: Site, value: Tensor, batch: torch.Size) -> int:
    """How many coordinates of each of a batch of vectors a site's value takes; 0 if none.

    The batch has to be a part of the site's batch, with the coordinates to the right of it.
    """
    try:
        prior = Prior(site["fn"])
    except NotImplementedError:
        return 0
    wide, event_dim = prior.unconstrained_shape(value), prior.event_dim
    if not batch.numel() or wide.numel() % batch.numel():
        return 0
    for i, size in enumerate(reversed(batch)):
        place = len(wide) - event_dim - i
        if size != 1 and wide[:place].numel() != batch[: len(batch) - i].numel():
            return 0
    return wide.numel() // batch.numel()
