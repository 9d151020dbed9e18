"""Latents that a guide draws one by one: from a distribution, or as AutoNormal does.

AutoNormal draws an auxiliary Normal, maps it to the site's support and gives the result to a
Delta, whose log density is the Jacobian. `AutoNormalSite` takes both together as the image of the
Normal, after a check that the Delta's value is that image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.distributions import Independent, Normal

from ...registry.shapes import check_event_shapes
from ...registry.subclasses import is_a
from ...wrappers.masked import unmasked
from ..traces import Site, Trace, Traces
from .guide_site import GuideSite, ImageSite
from .pair_kl import PairKL, UnivariatePair, kl_of_pair


@dataclass
class OwnDistribution(GuideSite):
    """The guide's site has a distribution of its own."""

    name: str

    def __post_init__(self) -> None:
        self.parts = (self.name,)

    def univariate_pair(self, traces: Traces) -> UnivariatePair | None:
        """The two distributions, if they are products of univariate ones."""
        q, p = traces.guide.nodes[self.name]["fn"], traces.model.nodes[self.name]["fn"]
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
