"""How a guide draws each latent: what the traces show, autoguides included.

An autoguide draws an auxiliary Normal, maps it to the site's support and hands the result to a
Delta, whose log density is the Jacobian. Here the two are put together again, after checking
that the map of the one is the value of the other. What is not recognised is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.util import ignore_jit_warnings
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, biject_to

from ...registry.shapes import check_event_shapes, peel
from ...registry.subclasses import is_a
from ..terms import PairKL, is_identity, kl_of_pair, without_mask
from ..traces import Site, Trace


@dataclass
class UnivariatePair:
    """A KL between batches of univariate distributions.

    Attributes:
        q: of the guide.
        p: of the model.
        event_dims: how many of the rightmost dims of the batch are dims of the site's event.
        excess: nats per element to be added.
    """

    q: Distribution
    p: Distribution
    event_dims: int
    excess: Tensor | None = None


class GuideSite:
    """How the guide draws one latent.

    Attributes:
        name: the latent.
    """

    name: str

    @property
    def parts(self) -> tuple[str, ...]:
        """The guide's sites that make up its density, the one of the latent last."""
        return ()

    @property
    def word(self) -> str:
        """What is exact about it, where that needs saying."""
        return ""

    def kl(self, model_trace: Trace, guide_trace: Trace) -> PairKL:
        """The exact KL, or NotImplementedError."""
        raise NotImplementedError

    def holds(self, model_trace: Trace, guide_trace: Trace) -> bool:
        """Whether the value in the traces is what this drawing makes of its parts."""
        return True

    def univariate_pair(self, model_trace: Trace, guide_trace: Trace) -> UnivariatePair | None:
        """The univariate pair, to be computed with those of other sites; None if it is none."""
        return None

    def entropy(self, guide_trace: Trace) -> Tensor:
        """The entropy, of the site's batch shape, or NotImplementedError."""
        raise NotImplementedError

    def log_q(self, guide_trace: Trace) -> list[tuple[Tensor, Site]]:
        """Summands of the log density at the value, each with the site that scales it."""
        raise NotImplementedError


@dataclass
class OwnDistribution(GuideSite):
    """The guide's site has a distribution of its own."""

    name: str

    @property
    def parts(self) -> tuple[str, ...]:
        """The site itself."""
        return (self.name,)

    def kl(self, model_trace: Trace, guide_trace: Trace) -> PairKL:
        """KL(distribution of the guide || prior)."""
        q, _ = without_mask(guide_trace.nodes[self.name]["fn"])
        p, _ = without_mask(model_trace.nodes[self.name]["fn"])
        return kl_of_pair(q, p)

    def univariate_pair(self, model_trace: Trace, guide_trace: Trace) -> UnivariatePair | None:
        """The two distributions, if they are products of univariate ones."""
        q, p = guide_trace.nodes[self.name]["fn"], model_trace.nodes[self.name]["fn"]
        check_event_shapes(q, p)
        depth = p.event_dim
        if depth == 0:
            return UnivariatePair(q, p, 0)
        if type(q) is type(p) is dist.Independent:
            if q.reinterpreted_batch_ndims == p.reinterpreted_batch_ndims == depth:
                return UnivariatePair(q.base_dist, p.base_dist, depth)
        return None

    def entropy(self, guide_trace: Trace) -> Tensor:
        """The distribution's own."""
        return without_mask(guide_trace.nodes[self.name]["fn"])[0].entropy()

    def log_q(self, guide_trace: Trace) -> list[tuple[Tensor, Site]]:
        """The site's log density."""
        site = guide_trace.nodes[self.name]
        return [(site["unscaled_log_prob"], site)]


@dataclass
class FromPrior(GuideSite):
    """The guide does not draw it: the model does, from the prior."""

    name: str


@dataclass
class AutoNormalSite(GuideSite):
    """An auxiliary Normal, and the Delta at its image: AutoNormal."""

    name: str
    auxiliary: str

    @property
    def parts(self) -> tuple[str, ...]:
        """The Normal and the Delta."""
        return (self.auxiliary, self.name)

    def holds(self, model_trace: Trace, guide_trace: Trace) -> bool:
        """Whether the Delta is the image of the Normal."""
        return AutoNormalSite.found(self.name, self.auxiliary, model_trace, guide_trace)

    def kl(self, model_trace: Trace, guide_trace: Trace) -> PairKL:
        """KL(image of the Normal || prior)."""
        normal = guide_trace.nodes[self.auxiliary]["fn"]
        base, _ = _normal_base(normal)
        prior, _ = without_mask(model_trace.nodes[self.name]["fn"])
        return pushforward_kl(base.loc, base.scale, prior)

    def univariate_pair(self, model_trace: Trace, guide_trace: Trace) -> UnivariatePair | None:
        """The Normal itself, where the site's support is the line."""
        prior = model_trace.nodes[self.name]["fn"]
        base, depth, transform = split_support(prior)
        normal, _ = _normal_base(guide_trace.nodes[self.auxiliary]["fn"])
        return UnivariatePair(normal, base, depth) if is_univariate_identity(transform) else None

    def log_q(self, guide_trace: Trace) -> list[tuple[Tensor, Site]]:
        """The Normal's log density, and the Jacobian that the Delta carries."""
        return [
            (guide_trace.nodes[name]["unscaled_log_prob"], guide_trace.nodes[name])
            for name in self.parts
        ]

    @classmethod
    def found(cls, name: str, auxiliary: str, model_trace: Trace, guide_trace: Trace) -> bool:
        """Whether the Delta of `name` is the image of the Normal of `auxiliary`."""
        aux, site = guide_trace.nodes[auxiliary], guide_trace.nodes[name]
        if _normal_base(aux["fn"])[0] is None or aux["fn"].batch_shape != site["fn"].batch_shape:
            return False
        prior = model_trace.nodes[name]
        if not same_values(prior, aux["value"], site["value"]):
            return False
        # a vector that holds the value end to end is for joint sites to take apart
        return aux["value"].shape == unconstrained_shape(prior, site["value"])[0]


def _normal_base(distribution: Distribution) -> tuple[Any, int]:
    """The Normal under a product of Normals, or None."""
    distribution, depth = (
        (distribution.base_dist, distribution.reinterpreted_batch_ndims)
        if is_a(distribution, Independent)
        else (distribution, 0)
    )
    return (distribution, depth) if is_a(distribution, Normal) else (None, 0)


def split_support(prior: Distribution) -> tuple[Distribution, int, Any]:
    """A prior without its Independent, how many dims that had, and the map to its support."""
    depth = prior.reinterpreted_batch_ndims if is_a(prior, Independent) else 0
    base = peel(prior, depth)
    return base, depth, biject_to(base.support)


def is_univariate_identity(transform: Any) -> bool:
    """Whether a support is the line."""
    return transform.domain.event_dim == 0 and is_identity(transform)


def unconstrained_shape(site: Site, value: Tensor) -> tuple[torch.Size, int]:
    """Shape of a site's value before the map to its support, and how many dims are the event's.

    Raises:
        NotImplementedError: there is no map to the support.
    """
    transform = biject_to(without_mask(site["fn"])[0].support)
    return torch.Size(transform.inverse_shape(value.shape)), transform.domain.event_dim


def same_values(site: Site, unconstrained: Tensor, value: Tensor) -> bool:
    """Whether a site's value is the image of `unconstrained` under its support's map."""
    try:
        wide, _ = unconstrained_shape(site, value)
    except NotImplementedError:
        return False
    if unconstrained.numel() != wide.numel():
        return False
    transform = biject_to(without_mask(site["fn"])[0].support)
    if is_identity(transform) and unconstrained.data_ptr() == value.data_ptr():
        return True
    return torch.equal(transform(unconstrained.reshape(wide)), value)


def pushforward_kl(loc: Tensor, scale: Tensor, prior: Distribution) -> PairKL:
    """KL(T_* N(loc, scale^2) || prior) for T, the map from the line to the prior's support.

    Args:
        loc: of the Normal, in the shape of the unconstrained value.
        scale: of the Normal, likewise.
        prior: the site's distribution in the model.

    Raises:
        NotImplementedError: there is no formula.
    """
    base, depth, transform = split_support(prior)
    event_dim = transform.domain.event_dim
    normal = dist.Normal(loc, scale, validate_args=False)
    if event_dim and torch._C._get_tracing_state():
        _fix_shape(normal)
    q: Distribution = normal.to_event(event_dim) if event_dim else normal
    if not is_identity(transform):
        q = dist.TransformedDistribution(q, [transform], validate_args=False)
    # a support of numbers may be that of vectors, as of ImproperUniform(real, (), (2,))
    rest = len(base.event_shape) - len(q.event_shape)
    if rest > 0:
        q = dist.Independent(q, rest, validate_args=False)
        event_dim += rest
    pair = kl_of_pair(q, base)
    shape = torch.broadcast_shapes(loc.shape[: loc.dim() - event_dim], base.batch_shape)
    dims = pair.dims.expand(shape + pair.dims.shape[pair.dims.dim() - pair.event_dims :])
    return PairKL(dims, pair.event_dims + depth)


def _fix_shape(distribution: Any) -> None:
    """Make the sizes of a traced distribution plain numbers: maps of vectors compute with them."""
    with ignore_jit_warnings():
        distribution._batch_shape = torch.Size([int(size) for size in distribution.batch_shape])


def auxiliary_sites(guide_trace: Trace, latents: set[str]) -> Iterator[str]:
    """Names of the guide's sites that the model does not have, in order."""
    for name, site in guide_trace.nodes.items():
        if site["type"] == "sample" and name not in latents:
            yield name
