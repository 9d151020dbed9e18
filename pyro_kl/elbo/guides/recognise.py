"""How a guide draws each latent, found in its trace; and the sites that belong to no latent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyro.distributions import Delta
from torch.distributions import Distribution

from ...messages import without_link
from ..traces import Site, Trace, Traces
from .guide_site import FromPrior, GuideSite
from .joint import joint_blocks
from .mean_field import AutoNormalSite, OwnDistribution, is_normal
from .structured import structured_sites
from .validity import Watch


@dataclass(frozen=True)
class Recognised:
    """How each latent is drawn.

    Attributes:
        sites: latent -> how the guide draws it, in the model's order.
        auxiliary: the guide's other sites, which are part of no latent.
        images: latent that is a point -> random auxiliary sites before it that it may be computed
            from -> what is not recognised about them.
    """

    sites: dict[str, GuideSite]
    auxiliary: list[str]
    images: dict[str, dict[str, str]]


def recognise(latents: Sequence[str], traces: Traces, guide: Any) -> Recognised:
    """Find how the guide draws each latent.

    Args:
        latents: of the model.
        traces: of model and guide.
        guide: the guide.
    """
    known = set(latents)
    found: dict[str, GuideSite] = {}
    for structured in structured_sites(guide, latents, traces):
        found[structured.name] = structured
    why: dict[str, str] = {}
    for auxiliary, members in _followers(known, traces.guide).items():
        members = [name for name in members if name not in found]
        if members and is_normal(traces.guide.nodes[auxiliary]["fn"]):
            site = AutoNormalSite(members[0], auxiliary)
            if site.holds(traces):
                found[site.name] = site
                continue
            if not traces.guide.nodes[auxiliary]["fn"].event_shape:
                why[auxiliary] = (
                    "the value is not its image under biject_to of the prior's support"
                )
                continue
        try:
            blocks = joint_blocks(auxiliary, members, traces)
            found.update((block.name, block) for block in blocks)
        except NotImplementedError as error:
            why[auxiliary] = without_link(error)
    for name in latents:
        if name not in found:
            found[name] = OwnDistribution(name) if name in traces.guide.nodes else FromPrior(name)
    used = {part for site in found.values() for part in site.parts}
    left = [
        name
        for name, node in traces.guide.nodes.items()
        if node["type"] == "sample" and name not in known and name not in used
    ]
    sites = {name: found[name] for name in latents}
    return Recognised(sites, left, _images(sites, left, why, traces.guide))


def _followers(latents: set[str], guide_trace: Trace) -> dict[str, list[str]]:
    """Auxiliary site -> the Deltas between it and the next auxiliary site."""
    followers: dict[str, list[str]] = {}
    current: list[str] | None = None
    for name, site in guide_trace.nodes.items():
        if site["type"] != "sample":
            continue
        if name not in latents:
            current = followers.setdefault(name, [])
        elif not is_delta(site["fn"]):
            current = None
        elif current is not None:
            current.append(name)
    return followers


def is_delta(distribution: Distribution) -> bool:
    """Whether a distribution, without mask and Independent, is a Delta."""
    while not isinstance(distribution, Delta) and hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return isinstance(distribution, Delta)


def is_point(site: GuideSite, guide_trace: Trace) -> bool:
    """Whether a latent is a Delta that is not recognised as the image of an auxiliary site."""
    if not isinstance(site, OwnDistribution):
        return False
    return is_delta(guide_trace.nodes[site.name]["fn"])


def _images(
    sites: Mapping[str, GuideSite],
    left: Sequence[str],
    why: Mapping[str, str],
    guide_trace: Trace,
) -> dict[str, dict[str, str]]:
    """The points that come after auxiliary sites and may depend on them.

    Where the run was watched, a point is tied only to the sites that it was computed from.
    """
    images: dict[str, dict[str, str]] = {}
    before: dict[str, str] = {}
    watch: Watch | None = getattr(guide_trace, "pyro_kl_watch", None)
    for name, node in guide_trace.nodes.items():
        if name in left and _is_random(node):
            before[name] = why.get(name, "nothing is known to be drawn from it")
        elif name in sites and is_point(sites[name], guide_trace):
            sources = before if watch is None else watch.computed_from(node["value"], before)
            if sources:
                images[name] = {source: before[source] for source in sources}
    return images


def _is_random(node: Site) -> bool:
    """Whether a site is random: AutoLaplaceApproximation's is a point, and data are given."""
    return not node["is_observed"] and not is_delta(node["fn"])
