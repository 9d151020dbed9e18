"""How a guide draws one latent on its own: from a distribution, or as AutoNormal does.

AutoNormal draws an auxiliary Normal, maps it to the site's support and gives the result to a
Delta, whose log density is the Jacobian. `AutoNormalSite` takes both together as the image of the
Normal, after a check that the Delta's value is that image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from ...registry.shapes import check_event_shapes
from ...registry.subclasses import is_a
from ...wrappers.masked import unmasked
from ..terms import scaled
from ..traces import Site, Trace, Traces
from .pair_kl import PairKL, Prior, Support, UnivariatePair, kl_of_pair


class GuideSite:
    """How the guide draws one latent.

    Attributes:
        name: the latent.
        parts: the guide's sites that make up its density, the one of the latent last.
        word: what is exact about its KL, where that needs saying.
    """

    name: str
    parts: tuple[str, ...] = ()
    word: str = ""

    def holds(self, traces: Traces) -> bool:
        """Whether the value in the traces is still made of the parts in this way."""
        return True

    def univariate_pair(self, traces: Traces) -> UnivariatePair | None:
        """The distributions of guide and model, if both are univariate; None if not."""
        return None

    def kl(self, traces: Traces) -> PairKL:
        """The exact KL.

        Raises:
            NotImplementedError: there is no formula.
        """
        raise NotImplementedError

    def entropy(self, guide_trace: Trace) -> Tensor:
        """The entropy, of the site's batch shape.

        Raises:
            NotImplementedError: it is not known.
        """
        raise NotImplementedError

    def log_q(self, guide_trace: Trace) -> list[tuple[Tensor, Site]]:
        """Summands of the log density at the value, each with the site that scales it."""
        raise NotImplementedError

    def scaled_log_q(self, guide_trace: Trace, mask: Any = True) -> Tensor:
        """The log density at the value, scaled and masked, of the site's batch shape.

        Args:
            guide_trace: of the guide, with the densities of the parts.
            mask: to be applied beside those of the parts.
        """
        total: Any = 0.0
        for log_q, site in self.log_q(guide_trace):
            total = total + scaled(log_q, site, mask)
        return total


@dataclass
class FromPrior(GuideSite):
    """The guide does not draw the latent: the model does, from the prior."""

    name: str


@dataclass
class OwnDistribution(GuideSite):
    """The guide's site has a distribution of its own."""

    name: str

    def __post_init__(self) -> None:
        self.parts = (self.name,)

    def univariate_pair(self, traces: Traces) -> UnivariatePair | None:
        """The two distributions, if they are products of univariate ones."""
        q, p = self._bare(traces.guide), self._bare(traces.model)
        check_event_shapes(q, p)
        depth = p.event_dim
        if depth == 0:
            return UnivariatePair(q, p, 0)
        if is_a(q, Independent) and type(q) is type(p):
            if q.reinterpreted_batch_ndims == p.reinterpreted_batch_ndims == depth:
                return UnivariatePair(q.base_dist, p.base_dist, depth)
        return None

    def kl(self, traces: Traces) -> PairKL:
        """KL(distribution of the guide || prior)."""
        return kl_of_pair(self._bare(traces.guide), self._bare(traces.model))

    def entropy(self, guide_trace: Trace) -> Tensor:
        """The distribution's own."""
        return self._bare(guide_trace).entropy()

    def log_q(self, guide_trace: Trace) -> list[tuple[Tensor, Site]]:
        """The site's log density."""
        site = guide_trace.nodes[self.name]
        return [(site["unscaled_log_prob"], site)]

    def _bare(self, trace: Trace) -> Any:
        """The distribution of the site without its mask."""
        return unmasked(trace.nodes[self.name]["fn"])[0]


@dataclass
class ImageSite(GuideSite):
    """A Delta whose value is the image of an auxiliary site under the map to the prior's support.

    Attributes:
        name: the latent.
        auxiliary: the guide's site that draws the unconstrained value.
    """

    name: str
    auxiliary: str
    _support: Support | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.parts = (self.auxiliary, self.name)

    def prior(self, model_trace: Trace) -> Prior:
        """The prior, with the map to its support, which is kept for the next run.

        Raises:
            NotImplementedError: there is no map to its support.
        """
        prior = Prior(model_trace.nodes[self.name]["fn"], self._support)
        self._support = prior.support
        return prior

    def has_image(self, unconstrained: Tensor, traces: Traces, flat: bool = True) -> bool:
        """Whether the Delta's value is the image of a tensor.

        Args:
            unconstrained: the tensor.
            traces: of model and guide.
            flat: whether the tensor may have its coordinates end to end.
        """
        value = traces.guide.nodes[self.name]["value"]
        try:
            prior = self.prior(traces.model)
        except NotImplementedError:
            return False
        shape = prior.unconstrained_shape(value)
        if unconstrained.shape != shape:
            if not flat or unconstrained.numel() != shape.numel():
                return False
            unconstrained = unconstrained.reshape(shape)
        return prior.is_image(value, unconstrained)

    def shapes(self, prior: Prior, guide_trace: Trace) -> tuple[torch.Size, torch.Size]:
        """Of the unconstrained value, and of the batch in which the auxiliary site draws vectors.

        Args:
            prior: the prior.
            guide_trace: of the guide.
        """
        value = guide_trace.nodes[self.name]["value"]
        batch = guide_trace.nodes[self.auxiliary]["value"].shape[:-1]
        return prior.unconstrained_shape(value), batch


@dataclass
class AutoNormalSite(ImageSite):
    """An auxiliary Normal for each element of a latent, as AutoNormal draws it."""

    def holds(self, traces: Traces) -> bool:
        """Whether the Delta's value is the image of the Normal's."""
        aux, site = traces.guide.nodes[self.auxiliary], traces.guide.nodes[self.name]
        if aux["fn"].batch_shape != site["fn"].batch_shape:
            return False
        return self.has_image(aux["value"], traces, flat=False)

    def univariate_pair(self, traces: Traces) -> UnivariatePair | None:
        """The image of the Normal, and the prior, if that is a product of univariate ones."""
        return self.prior(traces.model).univariate_pair(self._normal(traces.guide))

    def kl(self, traces: Traces) -> PairKL:
        """KL(image of the Normal || prior)."""
        return self.prior(traces.model).image_kl(self._normal(traces.guide))

    def log_q(self, guide_trace: Trace) -> list[tuple[Tensor, Site]]:
        """The Normal's log density, and the Jacobian that the Delta carries."""
        sites = [guide_trace.nodes[name] for name in self.parts]
        return [(site["unscaled_log_prob"], site) for site in sites]

    def _normal(self, guide_trace: Trace) -> Any:
        """The auxiliary Normal without its Independent."""
        distribution = guide_trace.nodes[self.auxiliary]["fn"]
        return distribution.base_dist if isinstance(distribution, Independent) else distribution


def is_normal(distribution: Any) -> bool:
    """Whether a distribution is a product of Normals."""
    if is_a(distribution, Independent):
        distribution = distribution.base_dist
    return is_a(distribution, Normal)
