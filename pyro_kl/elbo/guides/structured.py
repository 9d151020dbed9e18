"""AutoStructured: the KL of each site given the sites that the guide makes it depend on.

The guide draws standard noise per site, u_k = loc + L noise + sum of dependencies on the sites
before it, so that q(u_k | u_<k) = N(u_k - L noise, L L'). The mean is computed from the guide's
own dependencies, and the sum is checked against the value in the trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from pyro.infer.autoguide import AutoStructured
from torch import Tensor

from ..traces import Site, Trace, Traces
from .gaussian_blocks import GaussianBlock
from .guide_site import ImageSite
from .joint import product_kl
from .pair_kl import PairKL


class _GuideRun:
    """The conditional Gaussians of an AutoStructured in one run.

    Args:
        guide: the autoguide.
        guide_trace: of the run.
    """

    def __init__(self, guide: Any, guide_trace: Trace) -> None:
        self.guide, self.nodes = guide, guide_trace.nodes
        self._centred: dict[str, Any] = {}

    def block(self, name: str) -> GaussianBlock:
        """The Gaussian of a site given the sites that it depends on."""
        guide = self.guide
        mean = attrgetter(name)(guide.locs) + self._shift(name)
        scale: Tensor = attrgetter(name)(guide.scales)
        if guide.conditionals[name] == "normal":
            return GaussianBlock(mean, scale, scale.log, lambda: torch.diag(scale), None)
        tril = scale.unsqueeze(-1) * attrgetter(name)(guide.scale_trils)
        sd = tril.square().sum(-1).sqrt()
        log_diagonal = tril.diagonal().log()
        excess = sd.log() - log_diagonal
        return GaussianBlock(mean, sd, lambda: log_diagonal, lambda: tril, excess)

    def _shift(self, name: str) -> Any:
        """The part of the mean that comes from the sites before, flattened."""
        deps = attrgetter(name)(self.guide.deps)
        total: Any = 0.0
        for upstream in self.guide.dependencies.get(name, {}):
            total = total + attrgetter(upstream)(deps)(self.centred(upstream))
        return total

    def centred(self, name: str) -> Any:
        """u - loc of a site, flattened, in the guide's own order of operations."""
        if name not in self._centred:
            guide, conditional = self.guide, self.guide.conditionals[name]
            if conditional == "delta":
                own: Any = torch.zeros_like(attrgetter(name)(guide.locs))
            else:
                noise, scale = self.nodes[name + "_aux"]["value"], attrgetter(name)(guide.scales)
                if conditional == "mvn":
                    noise = noise @ attrgetter(name)(guide.scale_trils).T
                own = noise * scale
            self._centred[name] = own + self._shift(name)
        return self._centred[name]


def _run_of(guide: Any, guide_trace: Trace) -> _GuideRun:
    """The run of a guide, kept with the trace so that its sites share the work."""
    runs = guide_trace.__dict__.setdefault("pyro_kl_structured", {})
    if id(guide) not in runs:
        runs[id(guide)] = _GuideRun(guide, guide_trace)
    run: _GuideRun = runs[id(guide)]
    return run


@dataclass
class StructuredSite(ImageSite):
    """A site of AutoStructured with a "normal" or "mvn" conditional.

    Attributes:
        guide: the autoguide.
    """

    guide: Any
    word = "exact given the sites that the guide makes it depend on"

    def holds(self, traces: Traces) -> bool:
        """Whether the value is the image of this guide's noise, and not of another guide's."""
        centred = _run_of(self.guide, traces.guide).centred(self.name)
        u = attrgetter(self.name)(self.guide.locs) + centred
        return self.has_image(u, traces)

    def kl(self, traces: Traces) -> PairKL:
        """KL of the conditional against the prior."""
        block, prior = _run_of(self.guide, traces.guide).block(self.name), self.prior(traces.model)
        return product_kl(block, prior, *self.shapes(prior, traces.guide))

    def log_q(self, guide_trace: Trace) -> list[tuple[Tensor, Site]]:
        """The noise's log density, and the Jacobian that the Delta carries."""
        aux, site = guide_trace.nodes[self.auxiliary], guide_trace.nodes[self.name]
        log_noise = aux["fn"].base_dist.log_prob(aux["value"])
        jacobian = site["unscaled_log_prob"]
        return [(log_noise.reshape((*jacobian.shape, -1)).sum(-1), aux), (jacobian, site)]


def _is_structured(part: Any) -> bool:
    """Whether a module is an AutoStructured whose noise is Normal throughout."""
    if not isinstance(part, AutoStructured) or not isinstance(part.conditionals, dict):
        return False
    return not any(map(callable, part.conditionals.values()))


def structured_sites(guide: Any, names: Sequence[str], traces: Traces) -> list[StructuredSite]:
    """The sites among `names` that an AutoStructured inside `guide` draws."""
    modules: Any = guide.modules() if isinstance(guide, torch.nn.Module) else ()
    found: list[StructuredSite] = []
    for part in modules:
        if not _is_structured(part):
            continue
        for name, conditional in part.conditionals.items():
            aux = name + "_aux"
            if conditional == "delta" or name not in names or aux not in traces.guide.nodes:
                continue
            site = StructuredSite(name, aux, part)
            if site.holds(traces):
                found.append(site)
    return found
