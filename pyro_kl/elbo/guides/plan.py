"""Which latent is computed how: decided once for each structure of model and guide.

A plan is made from the first pair of traces of a structure (names and classes of all sites). Later
traces of the same structure follow it, so that only the formulas are left to compute.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from pyro.poutine.guide import GuideMessenger

from ...divergence.kl import method_of
from ...messages import without_link
from ...registry.provenance import recording
from ...wrappers.masked import unmasked
from ..traces import Site, Traces, is_deterministic
from .dependence import Layout, late_sites
from .guide_site import FromPrior, GuideSite
from .joint import JointBlock
from .recognise import is_point, recognise
from .validity import Watch


@dataclass(frozen=True)
class Run:
    """A model and a guide, with the arguments that both are called with."""

    model: Callable[..., Any]
    guide: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass
class Decision:
    """How one latent is computed, and why.

    Attributes:
        site: how the guide draws it.
        exact: whether by a formula.
        method: "closed form", "quadrature", ..., "point density", "prior" or "monte carlo".
        source: where a reader finds the formula.
        reason: why.
        warns: whether the user is warned of it.
        masked: whether a distribution of the latent, in model or guide, has a mask of its own.
        agrees: whether model and guide had the same scale and mask in the last run.
    """

    site: GuideSite
    exact: bool
    method: str
    source: str = ""
    reason: str = ""
    warns: bool = False
    masked: bool = False
    agrees: bool | None = None


@dataclass
class Plan:
    """The decisions for one structure.

    Attributes:
        decisions: latent -> how it is computed, in the model's order.
        observed: the model's observed sites and factors.
        auxiliary: the guide's sites that are part of no latent.
        groups: latent or auxiliary -> name of the group of sites whose terms only count together.
        undeclared: auxiliary sites that the guide has not marked as such.
        enumerated: latents that are marked for enumeration, which this ELBO does not do.
        disagreeing: latents where model and guide have differed in scale or mask.
        summed_out: sites of the model that an ELBO with enumeration sums out.
        watch_draws: whether a watched run tells more than the order of the sites of which costs
            depend on which draws without reparametrisation; None if that was not asked yet.
    """

    decisions: dict[str, Decision]
    observed: list[str]
    auxiliary: list[str]
    groups: dict[str, str]
    undeclared: list[str] = field(default_factory=list)
    enumerated: list[str] = field(default_factory=list)
    disagreeing: list[str] = field(default_factory=list)
    summed_out: list[str] = field(default_factory=list)
    watch_draws: bool | None = None


class Plans:
    """All plans of an ELBO.

    Plans are kept by structure and by the set of latents whose prior depends on their own draw.
    Where the structure does not determine that set, it is found again in every run.

    Args:
        mean_field: "check" tests whether an exact KL is valid, "assume" takes it to be, "never"
            samples every site.
        sampled: the latents that are to be sampled in any case.
    """

    def __init__(self, mean_field: str, sampled: Collection[str] = ()) -> None:
        self.mean_field, self.sampled = mean_field, sampled
        self._layouts: dict[Any, Layout] = {}
        self._plans: dict[Any, Plan] = {}

    def copy(self) -> Plans:
        """The same plans; those that are made later belong to one of both only."""
        other = type(self)(self.mean_field, self.sampled)
        other._layouts, other._plans = dict(self._layouts), dict(self._plans)
        return other

    @property
    def watches(self) -> bool:
        """Whether the next run is to be watched: the first, and all if any structure needs it."""
        if self.mean_field == "never":
            return False
        if not self._layouts:
            return True
        for layout in self._layouts.values():
            if layout.watches:
                return True
        return torch.is_grad_enabled() and any(plan.watch_draws for plan in self._plans.values())

    def get(
        self,
        traces: Traces,
        guide: Any,
        sampled: Mapping[str, str] = MappingProxyType({}),
        anew: bool = False,
    ) -> tuple[Plan, bool]:
        """The plan for a pair of traces, and whether it is a new one.

        Args:
            traces: of model and guide.
            guide: the guide.
            sampled: latents whose exact KL is to be sampled in this run -> why.
            anew: whether the plan that was made before does not fit: a distribution has changed
                without a change of its class.
        """
        structure = self._structure(traces)
        layout = self._layouts.get(structure)
        if anew or layout is None:
            layout = self._layout(traces, guide)
            self._layouts[structure] = layout
        dependent: dict[str, list[str]] = {}
        unseen = False
        if layout.late or layout.blocks:
            watch: Watch | None = getattr(traces.guide, "pyro_kl_watch", None)
            dependent = layout.dependent(traces.model, watch)
            seen = watch is not None or isinstance(guide, GuideMessenger)
            unseen = bool(layout.late) and not seen
        key = structure, frozenset(dependent), frozenset(sampled.items()), unseen
        plan = None if anew else self._plans.get(key)
        if plan is not None:
            return plan, False
        plan = self._plan(layout, traces, dependent, unseen)
        for name, reason in sampled.items():
            before = plan.decisions[name]
            if before.exact:
                how = _sampled(before.site, reason, warns=True)
                plan.decisions[name] = replace(how, masked=before.masked)
        self._plans[key] = plan
        return plan, True

    def _structure(self, traces: Traces) -> tuple[Any, ...]:
        """What a plan depends on."""
        return structure_of(traces)

    def _latents(self, traces: Traces) -> list[str]:
        """The model's latents, for which decisions are made."""
        return [
            name
            for name, node in traces.model.nodes.items()
            if node["type"] == "sample" and not node["is_observed"]
        ]

    def _layout(self, traces: Traces, guide: Any) -> Layout:
        """Find out how each latent is drawn."""
        recognised = recognise(self._latents(traces), traces, guide)
        sites = recognised.sites
        late = late_sites(sites, traces.guide) if self.mean_field == "check" else {}
        blocks = [n for n, site in sites.items() if isinstance(site, JointBlock) and site.order]
        return Layout(recognised, late, blocks if self.mean_field != "never" else [])

    def _plan(
        self,
        layout: Layout,
        traces: Traces,
        dependent: Mapping[str, list[str]],
        unseen: bool,
    ) -> Plan:
        """Decide for each latent of the model.

        Args:
            layout: how each latent is drawn.
            traces: of model and guide.
            dependent: the latents whose prior depends on their own draw in this run.
            unseen: whether the run was not watched; the next one will be.
        """
        sites, images = layout.recognised.sites, layout.recognised.images
        decisions: dict[str, Decision] = {}
        for name, site in sites.items():
            if isinstance(site, JointBlock):
                site = replace(site, has_parents=name in dependent)
            if isinstance(site, FromPrior):
                how = Decision(site, False, "prior", reason=_FROM_PRIOR, warns=True)
            elif is_point(site, traces.guide):
                how = _of_point(site, images.get(name, {}))
            elif self.mean_field == "never":
                how = _sampled(site, 'mean_field="never"')
            elif name in self.sampled:
                how = _sampled(site, f'exact={{"{name}": False}}')
            elif name in layout.late and name in dependent:
                how = _of_late(site, dependent[name], unseen)
            else:
                how = _try_exact(site, traces)
            decisions[name] = replace(how, masked=_is_masked(site, traces))
        auxiliary, nodes = layout.recognised.auxiliary, traces.guide.nodes
        return Plan(
            decisions,
            [
                name
                for name, node in traces.model.nodes.items()
                if node["type"] == "sample" and node["is_observed"] and not is_deterministic(node)
            ],
            auxiliary,
            _groups([*decisions, *auxiliary], images),
            undeclared=[name for name in auxiliary if _is_undeclared(nodes[name])],
            enumerated=_enumerated(sites, auxiliary, traces),
        )


def structure_of(traces: Traces) -> tuple[Any, ...]:
    """Names and classes of all sites: what a plan depends on."""
    structure: list[Any] = []
    for trace in traces:
        structure.append(None)  # between the sites of the model and those of the guide
        for name, node in trace.nodes.items():
            if node["type"] == "sample":
                distribution = node["fn"]
                structure += name, node["is_observed"], type(distribution)
                while (distribution := getattr(distribution, "base_dist", None)) is not None:
                    structure.append(type(distribution))
    return tuple(structure)


def _is_undeclared(node: Site) -> bool:
    """Whether a site of the guide alone is not marked as auxiliary, and adds to the density."""
    return not node["infer"].get("is_auxiliary") and not is_deterministic(node)


def _enumerated(
    sites: Mapping[str, GuideSite], auxiliary: Collection[str], traces: Traces
) -> list[str]:
    """The sites that are marked for enumeration where they are drawn."""
    drawn = {
        name: (traces.model if isinstance(site, FromPrior) else traces.guide).nodes[name]
        for name, site in sites.items()
    }
    drawn.update((name, traces.guide.nodes[name]) for name in auxiliary)
    return [name for name, node in drawn.items() if node["infer"].get("enumerate")]


def _is_masked(site: GuideSite, traces: Traces) -> bool:
    """Whether a distribution of a latent has a mask of its own, inside of its event or not."""
    nodes = [traces.model.nodes[site.name], *(traces.guide.nodes[part] for part in site.parts)]
    for node in nodes:
        distribution = node["fn"]
        while distribution is not None:
            if isinstance(distribution, MaskedDistribution):
                return True
            distribution = getattr(distribution, "base_dist", None)
    return False


# --- decisions ----------------------------------------------------------------------------------

_FROM_PRIOR = (
    "missing in the guide: drawn from its prior, and -log p without a log q is in the loss"
)


def _sampled(site: GuideSite, reason: str, warns: bool = False) -> Decision:
    return Decision(site, False, "monte carlo", reason=reason, warns=warns)


def _of_point(site: GuideSite, images: Mapping[str, str]) -> Decision:
    """A Delta is exact if its location is deterministic."""
    if images:
        reason = "; ".join(
            f"{name}, which is not recognised: {why}" for name, why in images.items()
        )
        return _sampled(site, f"image of the auxiliary site {reason}")
    return Decision(site, False, "point density", reason="the guide is a point")


def _of_late(site: GuideSite, late: list[str], unseen: bool) -> Decision:
    """A latent whose prior depends on latents that the guide draws from it or after it."""
    names = ", ".join(late)
    if unseen:
        return _sampled(
            site, f"the guide draws {names} from it or after it: sampled until a run is watched"
        )
    reason = f"its prior depends on {names}, which the guide draws from it or after it"
    return _sampled(site, reason, warns=True)


def _try_exact(site: GuideSite, traces: Traces) -> Decision:
    """Exact if there is a formula."""
    try:
        with recording() as uses:
            site.kl(traces)
    except NotImplementedError as error:
        return _sampled(site, without_link(error).split(". ")[0], warns=True)
    q, _ = unmasked(traces.guide.nodes[site.parts[-1]]["fn"])
    p, _ = unmasked(traces.model.nodes[site.name]["fn"])
    method, source = method_of(q, p, uses)
    reason = "the guide has mass where the prior has none" if method == "infinite" else site.word
    return Decision(site, True, method, source, reason)


def _groups(names: Collection[str], images: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Sites whose terms make sense only together: auxiliary sites left over, and their images."""
    tied: dict[str, list[str]] = {name: [name] for name in names}
    for image, sources in images.items():
        for source in sources:
            if tied[source] is not tied[image]:
                tied[source] += tied[image]
                for name in tied[image]:
                    tied[name] = tied[source]
    return {name: " + ".join(group) for name, group in tied.items()}
