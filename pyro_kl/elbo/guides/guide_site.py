"""How a guide draws one latent: the interface of all sites, and images of auxiliary sites."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..terms import scaled
from ..traces import Site, Trace, Traces
from .pair_kl import PairKL, Prior, Support, UnivariatePair


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
        """The distributions of guide and model, if both are univariate; None if not.

        It is asked where neither has a mask of its own.
        """
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
        """The prior, kept with the trace, with the map to its support, kept for the next run.

        Raises:
            NotImplementedError: there is no map to its support.
        """
        node = model_trace.nodes[self.name]
        prior: Prior | None = node.get("pyro_kl_prior")
        if prior is None or prior.distribution is not node["fn"]:
            prior = node["pyro_kl_prior"] = Prior(node["fn"], self._support)
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
