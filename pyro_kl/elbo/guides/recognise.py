"""Who draws what: the guide's sites put together again, and what is left over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyro.distributions import Delta
from torch.distributions import Distribution

from ..traces import Site, Trace
from .joint import joint_blocks
from .mean_field import AutoNormalSite, FromPrior, GuideSite, OwnDistribution, auxiliary_sites
from .structured import structured_sites
from .validity import Watch


@dataclass(frozen=True)
class Recognised:
    """How each latent is drawn.

    Attributes:
        drawn: latent -> how the guide draws it, in the model's order.
        auxiliary: the guide's sites of their own account, which no latent has used.
        images: latent that is a point -> random auxiliary sites before it that it may be computed
            from -> what is not recognised about them.
    """

    drawn: dict[str, GuideSite]
    auxiliary: list[str]
    images: dict[str, dict[str, str]]


def recognise(
    latents: Sequence[str], model_trace: Trace, guide_trace: Trace, guide: Any
) -> Recognised:
    """Put together what the guide draws in parts.

    Args:
        latents: of the model.
        model_trace: of the model.
        guide_trace: of the guide.
        guide: the guide.
    """
    known = set(latents)
    found: dict[str, GuideSite] = {}
    for site in structured_sites(guide, latents, model_trace, guide_trace):
        found[site.name] = site
    why: dict[str, str] = {}
    for auxiliary, members in _followers(known, guide_trace).items():
        members = [name for name in members if name not in found]
        if members and AutoNormalSite.found(members[0], auxiliary, model_trace, guide_trace):
            found[members[0]] = AutoNormalSite(members[0], auxiliary)
            continue
        try:
            blocks = joint_blocks(auxiliary, members, model_trace, guide_trace)
            found.update((block.name, block) for block in blocks)
        except NotImplementedError as error:
            why[auxiliary] = str(error)
    for name in latents:
        if name not in found:
            found[name] = OwnDistribution(name) if name in guide_trace.nodes else FromPrior(name)
    used = {part for how in found.values() for part in how.parts}
    left = [name for name in auxiliary_sites(guide_trace, known) if name not in used]
    drawn = {name: found[name] for name in latents}
    return Recognised(drawn, left, _images(drawn, left, why, guide_trace))


def _followers(latents: set[str], guide_trace: Trace) -> dict[str, list[str]]:
    """Auxiliary site -> the Deltas between it and the next auxiliary site."""
    followers: dict[str, list[str]] = {}
    current: list[str] | None = None
    for name, site in guide_trace.nodes.items():
        if site["type"] != "sample":
            continue
        if name not in latents:
            current = followers.setdefault(name, [])
        elif not isinstance(_bare(site["fn"]), Delta):
            current = None
        elif current is not None:
            current.append(name)
    return followers


def _bare(distribution: Distribution) -> Distribution:
    """A distribution without mask and Independent."""
    while not isinstance(distribution, Delta) and hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return distribution


def is_point(how: GuideSite, guide_trace: Trace) -> bool:
    """Whether a latent is a Delta that was put together with nothing."""
    return isinstance(how, OwnDistribution) and isinstance(
        _bare(guide_trace.nodes[how.name]["fn"]), Delta
    )


def _images(
    drawn: Mapping[str, GuideSite], left: Sequence[str], why: Mapping[str, str], guide_trace: Trace
) -> dict[str, dict[str, str]]:
    """The points that come after auxiliary sites and may, as far as is seen, depend on them."""
    images: dict[str, dict[str, str]] = {}
    before: dict[str, str] = {}
    watch: Watch | None = getattr(guide_trace, "pyro_kl_watch", None)
    for name, site in guide_trace.nodes.items():
        if name in left and _is_random(site):
            before[name] = why.get(name, "nothing is known to be drawn from it")
        elif name in drawn and is_point(drawn[name], guide_trace):
            sources = before if watch is None else watch.computed_from(site["value"], before)
            if sources:
                images[name] = {source: before[source] for source in sources}
    return images


def _is_random(site: Site) -> bool:
    """Whether a site draws: that of AutoLaplaceApproximation is a point, data are given."""
    return not site["is_observed"] and not isinstance(_bare(site["fn"]), Delta)
