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

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    biject_to,
)

from ..shapes import peel
from .guides import (
    Drawn,
    Plain,
    is_univariate_identity,
    pushforward_kl,
    same_values,
    split_support,
)
from .terms import PairKL, kl_of_pair, without_mask
from .traces import Site, Trace

__all__ = ["Block", "GaussianBlock", "joint_blocks", "product_kl"]

#: Priors on a space of more than one dimension against which log p is a sum over coordinates of u.
_COORDINATEWISE = (dist.Dirichlet, torch.distributions.Dirichlet, dist.LKJCholesky)


@dataclass(frozen=True)
class GaussianBlock:
    """What is known of a site's unconstrained value u_k, flattened to n coordinates.

    Attributes:
        loc: mean given the blocks before it, or of the marginal; (..., n).
        scale: sd of each coordinate, given the blocks before it or of the marginal; (n,).
        log_diagonal: log sd of each coordinate given all before it, (n,); where only the sum is
            known, spread evenly.
        tril: the Cholesky factor of the covariance behind `scale`, (n, n), made when asked for.
    """

    loc: Tensor
    scale: Tensor
    log_diagonal: Tensor
    tril: Callable[[], Tensor]

    @property
    def excess(self) -> Tensor:
        """Entropy of each marginal beyond that of its conditional, (n,)."""
        return self.scale.log() - self.log_diagonal

    def log_q(self, u: Tensor) -> Tensor:
        """Log density of each coordinate given those before it, (..., n)."""
        tril = self.tril()
        gap = (u - self.loc).unsqueeze(-1)
        noise = torch.linalg.solve_triangular(tril, gap, upper=False).squeeze(-1)
        return -0.5 * (noise.square() + math.log(2 * math.pi)) - tril.diagonal().log()


def product_kl(
    block: GaussianBlock, shape: Sequence[int], wide: Sequence[int], prior: Distribution
) -> PairKL:
    """KL(T_* block || prior), with the block's coordinates arranged in `shape`.

    Args:
        block: the Gaussian.
        shape: of the unconstrained value, without particles.
        wide: the same with particles, where `block.loc` has them.
        prior: the site's law in the model.

    Raises:
        NotImplementedError: the prior ties coordinates together and is no multivariate Normal, or
            there is no formula for a coordinate.
    """
    loc = block.loc.reshape(wide if block.loc.dim() > 1 else shape)
    depth = prior.reinterpreted_batch_ndims if isinstance(prior, Independent) else 0
    base = peel(prior, depth)
    if isinstance(base, MultivariateNormal) and math.prod(shape) == shape[-1]:
        return _multivariate_kl(block, loc, prior)
    transform = biject_to(base.support)
    if transform.domain.event_dim and not isinstance(base, _COORDINATEWISE):
        raise NotImplementedError(
            f"{type(base).__name__} ties the coordinates of a correlated guide together"
        )
    pair = pushforward_kl(loc, block.scale.reshape(shape), prior)
    excess = sum_rightmost(block.excess.reshape(shape), transform.domain.event_dim)
    return replace(pair, dims=pair.dims + excess)


def _multivariate_kl(block: GaussianBlock, loc: Tensor, prior: Distribution) -> PairKL:
    """KL of a correlated block against a multivariate Normal prior."""
    tril = block.tril()
    q = dist.MultivariateNormal(loc, scale_tril=tril, validate_args=False)
    pair = kl_of_pair(q, prior)
    excess = (tril.diagonal().log() - block.log_diagonal).sum()
    return replace(pair, dims=pair.dims + excess)


@dataclass
class Block(Drawn):
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
        part = guide_trace.nodes[self.auxiliary]["value"][..., self.start : self.stop]
        return same_values(
            model_trace.nodes[self.name], part, guide_trace.nodes[self.name]["value"]
        )

    def _block(
        self, model_trace: Trace, guide_trace: Trace
    ) -> tuple[GaussianBlock, Any, Any, Any]:
        """The Gaussian, the shapes it is arranged in, and the prior."""
        aux = guide_trace.nodes[self.auxiliary]
        prior, _ = without_mask(model_trace.nodes[self.name]["fn"])
        transform = biject_to(prior.support)
        wide = transform.inverse_shape(guide_trace.nodes[self.name]["value"].shape)
        conditional = self.has_parents and self.order > 0
        block = _joint_of(aux, self.sizes).block(self.start, self.stop, conditional)
        shape = _without_particles(wide, aux["value"].shape[:-1], transform.domain.event_dim)
        return block, shape, wide, prior

    def kl(self, model_trace: Trace, guide_trace: Trace) -> PairKL:
        """KL of the block against the prior, plus what the block owes to correlation."""
        return product_kl(*self._block(model_trace, guide_trace))

    def plain(self, model_trace: Trace, guide_trace: Trace) -> Plain | None:
        """The coordinates as Normals, where the site's support is the line."""
        block, shape, wide, prior = self._block(model_trace, guide_trace)
        base, depth, transform = split_support(prior)
        if not is_univariate_identity(transform):
            return None
        loc = block.loc.reshape(wide if block.loc.dim() > 1 else shape)
        scale = block.scale.reshape(shape)
        return Plain(
            dist.Normal(loc, scale, validate_args=False), base, depth, block.excess.reshape(shape)
        )

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


def _without_particles(
    wide: Sequence[int], batch: Sequence[int], event_dim: int
) -> tuple[int, ...]:
    """The shape of an unconstrained value with 1 in place of the joint site's own batch dims."""
    shape = list(wide)
    for i, size in enumerate(reversed(batch)):
        place = len(shape) - event_dim - 1 - i
        if size != 1 and place >= 0:
            shape[place] = 1
    return tuple(shape)


class _Cholesky:
    """u = loc + L noise; what all blocks need is computed at once."""

    def __init__(self, loc: Tensor, tril: Tensor, value: Tensor, sizes: Sequence[int]) -> None:
        self.loc, self.tril, self.value, self.sizes = loc, tril, value, sizes
        self.log_diagonal = tril.diagonal().log()

    @cached_property
    def marginal_scale(self) -> Tensor:
        """Marginal sds, (d,)."""
        return self.tril.square().sum(-1).sqrt()

    @cached_property
    def own(self) -> Tensor:
        """The factor with nothing left but the blocks on the diagonal, (d, d)."""
        sizes = torch.tensor(self.sizes, device=self.tril.device)
        block_of = torch.arange(len(self.sizes), device=self.tril.device).repeat_interleave(sizes)
        return self.tril * (block_of.unsqueeze(-1) == block_of)

    @cached_property
    def conditional(self) -> tuple[Tensor, Tensor]:
        """Means and sds of each coordinate given the blocks before its own."""
        with torch.no_grad():  # the noise is a constant, whatever the parameters
            gap = (self.value - self.loc).unsqueeze(-1)
            noise = torch.linalg.solve_triangular(self.tril, gap, upper=False).squeeze(-1)
        loc = self.loc + noise @ (self.tril - self.own).mT
        return loc, self.own.square().sum(-1).sqrt()

    def block(self, start: int, stop: int, conditional: bool) -> GaussianBlock:
        """The coordinates from `start` to `stop`, given those before or not."""
        loc, scale = self.conditional if conditional else (self.loc, self.marginal_scale)
        return GaussianBlock(
            loc[..., start:stop],
            scale[start:stop],
            self.log_diagonal[start:stop],
            partial(self._factor, start, stop, conditional),
        )

    def _factor(self, start: int, stop: int, conditional: bool) -> Tensor:
        if conditional or start == 0:
            return self.tril[start:stop, start:stop]
        rows = self.tril[start:stop, :stop]
        return torch.linalg.cholesky(rows @ rows.mT)


class _Diagonal:
    """u = loc + scale * noise: no coordinate depends on another."""

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale, self.log_scale = loc, scale, scale.log()

    def block(self, start: int, stop: int, conditional: bool) -> GaussianBlock:
        """The coordinates from `start` to `stop`."""
        scale = self.scale[start:stop]
        return GaussianBlock(
            self.loc[start:stop], scale, self.log_scale[start:stop], lambda: torch.diag(scale)
        )


class _LowRank:
    """u = loc + W z + sqrt(D) noise, by the Gaussian that z is given the blocks before.

    With R_k = I + sum_{i<k} W_i' D_i^-1 W_i (r x r), z given u_<k has covariance R_k^-1 and mean
    R_k^-1 sum W_i' D_i^-1 (u_i - loc_i).
    """

    def __init__(self, law: LowRankMultivariateNormal, value: Tensor) -> None:
        self.loc, self.value = _first(law.loc, 1), value
        self.factor = _first(law._unbroadcasted_cov_factor, 2)
        self.diag = _first(law._unbroadcasted_cov_diag, 1)
        self._roots: dict[int, Tensor] = {}

    def _root(self, stop: int) -> Tensor:
        """Cholesky factor of R at a block boundary."""
        if stop not in self._roots:
            before = self.factor[:stop]
            gram = before.mT @ (before / self.diag[:stop].unsqueeze(-1))
            eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
            self._roots[stop] = torch.linalg.cholesky(eye + gram)
        return self._roots[stop]

    def block(self, start: int, stop: int, conditional: bool) -> GaussianBlock:
        """The coordinates from `start` to `stop`, given those before or not."""
        loc, factor, diag = self.loc[start:stop], self.factor[start:stop], self.diag[start:stop]
        root, after = self._root(start), self._root(stop)
        # |cov of the block given those before| = |D_k| |R_k+1| / |R_k|
        volume = 0.5 * diag.log().sum()
        volume = volume + (after.diagonal().log() - root.diagonal().log()).sum()
        log_diagonal = (volume / (stop - start)).expand(stop - start)
        if conditional and start > 0:
            weighted = self.factor[:start] / self.diag[:start].unsqueeze(-1)
            pull = (self.value[..., :start] - self.loc[:start]) @ weighted
            loc = loc + torch.cholesky_solve(pull.unsqueeze(-1), root).squeeze(-1) @ factor.mT
            factor = torch.linalg.solve_triangular(root, factor.mT, upper=False).mT
        scale = (factor.square().sum(-1) + diag).sqrt()
        return GaussianBlock(
            loc,
            scale,
            log_diagonal,
            lambda: torch.linalg.cholesky(factor @ factor.mT + torch.diag(diag)),
        )


def _joint_of(aux: Site, sizes: Sequence[int]) -> Any:
    """The Gaussian of a joint site, kept with the trace so that its blocks share the work."""
    if "pyro_kl_joint" not in aux:
        aux["pyro_kl_joint"] = _read_joint(aux["fn"], aux["value"], sizes)
    return aux["pyro_kl_joint"]


def _first(parameter: Tensor, event_dim: int) -> Tensor:
    """A parameter without its batch: a plate of particles has expanded it."""
    return parameter[(0,) * (parameter.dim() - event_dim)]


def _read_joint(law: Distribution, value: Tensor, sizes: Sequence[int] = ()) -> Any:
    """How a law draws u, or None if it is not one of the three."""
    if isinstance(law, MultivariateNormal):
        tril = _first(law._unbroadcasted_scale_tril, 2)
        return _Cholesky(_first(law.loc, 1), tril, value, sizes)
    if isinstance(law, LowRankMultivariateNormal):
        return _LowRank(law, value)
    if isinstance(law, Independent) and isinstance(law.base_dist, Normal):
        if len(law.event_shape) == 1:
            return _Diagonal(_first(law.base_dist.loc, 1), _first(law.base_dist.scale, 1))
    return None


def joint_blocks(
    auxiliary: str, members: Sequence[str], model_trace: Trace, guide_trace: Trace
) -> list[Block] | None:
    """The slices of a joint site that the Deltas after it are images of; None if they are not.

    Args:
        auxiliary: a site of the guide whose value is a vector.
        members: the Deltas after it, in the guide's order.
        model_trace: of the model.
        guide_trace: of the guide.
    """
    aux = guide_trace.nodes[auxiliary]
    value, law = aux["value"], aux["fn"]
    if not isinstance(value, Tensor) or len(law.event_shape) != 1 or not members:
        return None
    if _read_joint(law, value) is None or not _is_expanded(law):
        return None
    blocks: list[Block] = []
    start, batch = 0, value.shape[:-1]
    for order, name in enumerate(members):
        site = model_trace.nodes[name]
        try:
            transform = biject_to(without_mask(site["fn"])[0].support)
        except NotImplementedError:
            return None
        wide = transform.inverse_shape(guide_trace.nodes[name]["value"].shape)
        stop = start + torch.Size(wide).numel() // max(batch.numel(), 1)
        if stop > value.shape[-1] or torch.Size(wide).numel() % max(batch.numel(), 1):
            return None
        part = value[..., start:stop].reshape(wide)
        if not same_values(site, part, guide_trace.nodes[name]["value"]):
            return None
        blocks.append(Block(name, auxiliary, start, stop, order, ()))
        start = stop
    sizes = tuple(block.stop - block.start for block in blocks)
    return [replace(b, sizes=sizes) for b in blocks] if start == value.shape[-1] else None


def _is_expanded(law: Any) -> bool:
    """Whether the elements of a law's batch, if any, are copies of one: a plate of particles."""
    tensors = [law.loc] if hasattr(law, "loc") else [law.base_dist.loc, law.base_dist.scale]
    return all(
        stride == 0 or size == 1
        for tensor in tensors
        for stride, size in zip(tensor.stride()[:-1], tensor.shape[:-1], strict=True)
    )
