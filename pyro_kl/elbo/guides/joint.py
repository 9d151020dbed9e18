"""Joint Gaussian guides: the KL of each site by the chain rule.

All latents are packed into one u ~ N(mean, L L'), in the order of the model's sites. Then

    KL(q || p) = sum_k E KL(q(u_k | u_<k) || p(u_k | parents)),   u_k | u_<k ~ N(m_k, L_kk L_kk')

needs no solve but one with L that carries no gradient, and is a valid decomposition whatever
depends on what in the model, since parents come first. Where the cross-entropy against the prior
sees each coordinate on its own (it is a product, or a Dirichlet, or an LKJ), the KL of a block is
that of its marginals N(m_j, s_j^2) plus sum_j log(s_j / L_jj), its inner correlation. And where a
site has no parents at all, the expectation over u_<k is done exactly too: marginals of the whole
instead of conditionals, with the same correction. Such sites have no variance; the others are
Rao-Blackwellised.

Source: Cover & Thomas (2006), Elements of Information Theory, sec. 2.5 (chain rule).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MultivariateNormal,
    biject_to,
)

from ...registry.shapes import peel
from ...registry.subclasses import is_a
from ..terms import PairKL, kl_of_pair, without_mask
from ..traces import Site, Trace
from .gaussian import GaussianBlock, diagonal, read_joint
from .mean_field import (
    GuideSite,
    UnivariatePair,
    is_univariate_identity,
    pushforward_kl,
    same_values,
    split_support,
    unconstrained_shape,
)

#: Priors on a space of more than one dimension against which log p is a sum over coordinates of u.
_COORDINATEWISE = (dist.Dirichlet, torch.distributions.Dirichlet, dist.LKJCholesky)


def product_kl(
    block: GaussianBlock, wide: Sequence[int], batch: Sequence[int], prior: Distribution
) -> PairKL:
    """KL(T_* block || prior), with the block's coordinates arranged as the site's value.

    Args:
        block: the Gaussian, or a batch of them.
        wide: shape of the site's unconstrained value.
        batch: of the site that draws the Gaussian, to which its coordinates are added.
        prior: the site's distribution in the model.

    Raises:
        NotImplementedError: the prior ties coordinates together and is no multivariate Normal, or
            there is no formula for a coordinate.
    """
    depth = prior.reinterpreted_batch_ndims if is_a(prior, Independent) else 0
    base = peel(prior, depth)
    transform = biject_to(base.support)
    event_dim = depth + transform.domain.event_dim

    def arranged(coordinates: Tensor) -> Tensor:
        return coordinates.reshape(_narrow(wide, batch, coordinates.shape[:-1], event_dim))

    loc, scale, excess = map(arranged, (block.loc, block.scale, block.excess))
    if isinstance(base, MultivariateNormal) and block.scale.shape[-1] == wide[-1]:
        return _multivariate_kl(block, loc, scale.shape, prior)
    if transform.domain.event_dim and not isinstance(base, _COORDINATEWISE):
        raise NotImplementedError(
            f"{type(base).__name__} ties the coordinates of a correlated guide together"
        )
    pair = pushforward_kl(loc, scale, prior)
    return replace(pair, dims=pair.dims + sum_rightmost(excess, transform.domain.event_dim))


def _narrow(
    wide: Sequence[int], batch: Sequence[int], own: Sequence[int], event_dim: int
) -> tuple[int, ...]:
    """The shape `wide`, with 1 in place of the dims of `batch` that a parameter has not.

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


def _multivariate_kl(
    block: GaussianBlock, loc: Tensor, shape: Sequence[int], prior: Distribution
) -> PairKL:
    """KL of correlated blocks against a multivariate Normal prior, one block for each vector."""
    tril = block.tril()
    excess = (diagonal(tril).log() - block.log_diagonal).sum(-1).reshape(shape[:-1])
    tril = tril.reshape((*shape, shape[-1]))
    pair = kl_of_pair(dist.MultivariateNormal(loc, scale_tril=tril, validate_args=False), prior)
    return replace(pair, dims=pair.dims + excess)


@dataclass
class JointBlock(GuideSite):
    """A site's slice of a jointly Gaussian auxiliary site.

    Attributes:
        name: the latent.
        auxiliary: the site that draws all of u.
        start: first coordinate.
        stop: one past the last coordinate.
        order: place among the sites of the same auxiliary.
        sizes: numbers of coordinates of all sites of the same auxiliary.
        has_parents: whether the site's prior may depend on other latents.
    """

    name: str
    auxiliary: str
    start: int
    stop: int
    order: int
    sizes: tuple[int, ...]
    has_parents: bool = True

    @property
    def parts(self) -> tuple[str, ...]:
        """The joint site, and the Delta."""
        return (self.auxiliary, self.name)

    @property
    def word(self) -> str:
        """What is exact about it."""
        if self.has_parents and self.order > 0:
            return "Rao-Blackwellised: exact given the sites before it"
        return "exact marginal of the joint guide"

    def holds(self, model_trace: Trace, guide_trace: Trace) -> bool:
        """Whether the Delta is the image of the slice."""
        aux = guide_trace.nodes[self.auxiliary]
        if self.sizes and aux["value"].shape[-1] != sum(self.sizes):
            return False
        part = aux["value"][..., self.start : self.stop]
        return same_values(
            model_trace.nodes[self.name], part, guide_trace.nodes[self.name]["value"]
        )

    def _block(
        self, model_trace: Trace, guide_trace: Trace
    ) -> tuple[GaussianBlock, Any, Any, Any]:
        """The Gaussian, the site's unconstrained shape, the joint site's batch, the prior."""
        aux = guide_trace.nodes[self.auxiliary]
        prior, _ = without_mask(model_trace.nodes[self.name]["fn"])
        value = guide_trace.nodes[self.name]["value"]
        wide, _ = unconstrained_shape(model_trace.nodes[self.name], value)
        conditional = self.has_parents and self.order > 0
        block = _joint_of(aux, self.sizes).block(self.start, self.stop, conditional)
        return block, wide, aux["value"].shape[:-1], prior

    def kl(self, model_trace: Trace, guide_trace: Trace) -> PairKL:
        """KL of the block against the prior, plus what the block owes to correlation."""
        return product_kl(*self._block(model_trace, guide_trace))

    def univariate_pair(self, model_trace: Trace, guide_trace: Trace) -> UnivariatePair | None:
        """The coordinates as Normals, where the site's support is the line."""
        block, wide, batch, prior = self._block(model_trace, guide_trace)
        base, depth, transform = split_support(prior)
        if not is_univariate_identity(transform):
            return None
        loc, scale, excess = (
            x.reshape(_narrow(wide, batch, x.shape[:-1], depth))
            for x in (block.loc, block.scale, block.excess)
        )
        return UnivariatePair(dist.Normal(loc, scale, validate_args=False), base, depth, excess)

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


def joint_blocks(
    auxiliary: str, members: Sequence[str], model_trace: Trace, guide_trace: Trace
) -> list[JointBlock]:
    """The slices of a joint site that Deltas after it are images of.

    Args:
        auxiliary: a site of the guide whose value is a vector.
        members: the Deltas after it, in the guide's order; those that are no image of the next
            slice are passed over.
        model_trace: of the model.
        guide_trace: of the guide.

    Raises:
        NotImplementedError: the distribution is none of the Gaussians that can be taken apart, or
            its coordinates are not all accounted for.
    """
    aux = guide_trace.nodes[auxiliary]
    value, distribution = aux["value"], aux["fn"]
    if read_joint(distribution, value) is None:
        raise NotImplementedError(
            f"its distribution, {_name(distribution)}, is no Normal over a vector, "
            "MultivariateNormal or LowRankMultivariateNormal"
        )
    blocks: list[JointBlock] = []
    start, batch = 0, value.shape[:-1]
    for name in members:
        size = _coordinates(model_trace.nodes[name], guide_trace.nodes[name]["value"], batch)
        block = JointBlock(name, auxiliary, start, start + size, len(blocks), ())
        if size and block.stop <= value.shape[-1] and block.holds(model_trace, guide_trace):
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
        wide, event_dim = unconstrained_shape(site, value)
    except NotImplementedError:
        return 0
    if not batch.numel() or wide.numel() % batch.numel():
        return 0
    for i, size in enumerate(reversed(batch)):
        place = len(wide) - event_dim - i
        if size != 1 and wide[:place].numel() != batch[: len(batch) - i].numel():
            return 0
    return wide.numel() // batch.numel()
