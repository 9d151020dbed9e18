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

from ..traces import Site, Trace
from .gaussian import GaussianBlock
from .joint import product_kl
from .mean_field import ImageSite
from .pair_kl import PairKL


@dataclass
class StructuredSite(ImageSite):
    """A site of AutoStructured with a "normal" or "mvn" conditional.

    Attributes:
        guide: the autoguide.
    """

    guide: Any
    word = "exact given the sites that the guide makes it depend on"

    def holds(self, model_trace: Trace, guide_trace: Trace) -> bool:
        """Whether the value is what this guide, and not another one, makes of its noise."""
        made = _memo(self.guide, guide_trace)
        centred = _centred(self.guide, self.name, guide_trace, made)
        u = attrgetter(self.name)(self.guide.locs) + centred
        return self.has_image(u, model_trace, guide_trace)

    def kl(self, model_trace: Trace, guide_trace: Trace) -> PairKL:
        """KL of the conditional against the prior."""
        mean, tril = _conditional(self.guide, self.name, guide_trace)
        if tril.dim() == 1:
            block = GaussianBlock(mean, tril, tril.log(), lambda: torch.diag(tril))
        else:
            scale = tril.square().sum(-1).sqrt()
            block = GaussianBlock(mean, scale, tril.diagonal().log(), lambda: tril)
        prior = self.prior(model_trace)
        shape = prior.unconstrained_shape(guide_trace.nodes[self.name]["value"])
        batch = guide_trace.nodes[self.auxiliary]["value"].shape[:-1]
        return product_kl(block, prior, shape, batch)

    def log_q(self, guide_trace: Trace) -> list[tuple[Tensor, Site]]:
        """The noise's log density, and the Jacobian that the Delta carries."""
        aux, site = guide_trace.nodes[self.auxiliary], guide_trace.nodes[self.name]
        log_noise = aux["fn"].base_dist.log_prob(aux["value"])
        jacobian = site["unscaled_log_prob"]
        return [(log_noise.reshape((*jacobian.shape, -1)).sum(-1), aux), (jacobian, site)]


def _factor(guide: Any, name: str) -> Tensor:
    """The factor of a site's conditional: (n,) if diagonal, else (n, n)."""
    scale: Tensor = attrgetter(name)(guide.scales)
    if guide.conditionals[name] == "normal":
        return scale
    return scale.unsqueeze(-1) * attrgetter(name)(guide.scale_trils)


def _shift(guide: Any, name: str, guide_trace: Trace, made: dict[str, Any]) -> Tensor:
    """What the sites before add to the mean, flattened; memoised in `made`."""
    total: Any = 0.0
    deps = attrgetter(name)(guide.deps)
    for upstream in guide.dependencies.get(name, {}):
        total = total + attrgetter(upstream)(deps)(_centred(guide, upstream, guide_trace, made))
    return total


def _centred(guide: Any, name: str, guide_trace: Trace, made: dict[str, Any]) -> Any:
    """u - loc of a site, flattened, as the guide computes it."""
    if name not in made:
        conditional = guide.conditionals[name]
        if conditional == "delta":
            own: Any = torch.zeros_like(attrgetter(name)(guide.locs))
        elif conditional == "normal":
            own = guide_trace.nodes[name + "_aux"]["value"] * attrgetter(name)(guide.scales)
        else:
            tril, scale = attrgetter(name)(guide.scale_trils), attrgetter(name)(guide.scales)
            own = guide_trace.nodes[name + "_aux"]["value"] @ tril.T * scale
        made[name] = own + _shift(guide, name, guide_trace, made)
    return made[name]


def _memo(guide: Any, guide_trace: Trace) -> dict[str, Any]:
    """What has been computed of a guide in one run."""
    memos = guide_trace.__dict__.setdefault("pyro_kl_structured", {})
    memo: dict[str, Any] = memos.setdefault(id(guide), {})
    return memo


def _conditional(guide: Any, name: str, guide_trace: Trace) -> tuple[Tensor, Tensor]:
    made = _memo(guide, guide_trace)
    mean = attrgetter(name)(guide.locs) + _shift(guide, name, guide_trace, made)
    return mean, _factor(guide, name)


def _is_structured(part: Any) -> bool:
    """Whether a module is an AutoStructured whose noise is Normal throughout."""
    if not isinstance(part, AutoStructured) or not isinstance(part.conditionals, dict):
        return False
    return not any(map(callable, part.conditionals.values()))


def structured_sites(
    guide: Any, names: Sequence[str], model_trace: Trace, guide_trace: Trace
) -> list[StructuredSite]:
    """The sites among `names` that an AutoStructured inside `guide` draws."""
    modules: Any = guide.modules() if isinstance(guide, torch.nn.Module) else ()
    found: list[StructuredSite] = []
    for part in modules:
        if not _is_structured(part):
            continue
        for name, conditional in part.conditionals.items():
            aux = name + "_aux"
            if conditional == "delta" or name not in names or aux not in guide_trace.nodes:
                continue
            site = StructuredSite(name, aux, part)
            if site.holds(model_trace, guide_trace):
                found.append(site)
    return found
