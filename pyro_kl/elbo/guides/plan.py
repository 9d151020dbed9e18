"""Which site is computed how: decided once for each structure of model and guide.

A plan is made from the first pair of traces of a structure (names and types of all sites). Later
traces of the same structure follow it, so that nothing but the formulas is left to compute. What
may differ between runs of one structure (what depends on what) is asked in each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pyro.poutine.guide import GuideMessenger
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.transforms import Transform, _InverseTransform

from ...divergence.kl import method_of
from ...registry.provenance import recording
from ...registry.tensors import content, is_foreign
from ..terms import without_mask
from ..traces import Site, Trace
from .joint import JointBlock
from .mean_field import FromPrior, GuideSite
from .recognise import Recognised, is_point, recognise
from .validity import Watch, late_parents


@dataclass(frozen=True)
class Run:
    """What is run, to run it again where a dependency has to be found out."""

    model: Callable[..., Any]
    guide: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass
class Decision:
    """How one latent is computed, and why.

    Attributes:
        drawn: how the guide draws it.
        exact: whether by a formula.
        method: "closed form", "quadrature", ..., "point density", "prior" or "monte carlo".
        source: where a reader finds the formula.
        reason: why.
        warns: whether a user should hear of it.
    """

    drawn: GuideSite
    exact: bool
    method: str
    source: str = ""
    reason: str = ""
    warns: bool = False


@dataclass
class Plan:
    """The decisions for one structure.

    Attributes:
        decisions: latent -> how it is computed, in the model's order.
        auxiliary: the guide's sites of their own account, which no latent has used.
        groups: latent or auxiliary -> name of the group that it cannot be told apart from.
        agrees: latent -> whether model and guide agreed on scale and mask when last looked at.
        undeclared: auxiliary sites that the guide has not marked as such.
        enumerated: sites marked for enumeration, which nobody enumerates here.
    """

    decisions: dict[str, Decision]
    auxiliary: list[str]
    groups: dict[str, str]
    agrees: dict[str, bool] = field(default_factory=dict)
    undeclared: list[str] = field(default_factory=list)
    enumerated: list[str] = field(default_factory=list)


@dataclass
class Layout:
    """Who draws what in one structure, and what has to be asked in every run of it.

    Attributes:
        recognised: who draws what.
        late: latent -> the latents that are before it in the model and not in the guide; only
            where there are any.
        blocks: sites of a joint guide whose prior may or may not depend on the sites before.
        free: block -> its prior as it was when a watched run last saw it depend on no site.
        moved: whether a block is to be watched: no run was, or a prior is not as it was.
    """

    recognised: Recognised
    late: dict[str, list[str]]
    blocks: list[str]
    free: dict[str, list[Any]] = field(default_factory=dict)
    moved: bool = True

    @property
    def asks(self) -> bool:
        """Whether plans depend on what depends on what."""
        return bool(self.late or self.blocks)

    @property
    def watches(self) -> bool:
        """Whether the next run has to be watched to answer.

        A late site is asked about in every run. A block is not while its prior stays as it is;
        where it has changed it counts as dependent, which is valid in any case, until it is seen.
        """
        tracing = bool(torch._C._get_tracing_state())  # values of another run are no constants
        return bool(self.late or (self.blocks and (self.moved or tracing)))

    def answers(self, model_trace: Trace, watch: Watch | None) -> dict[str, list[str]]:
        """The sites asked about whose prior depends on their own draw -> by way of whom.

        Args:
            model_trace: of the model.
            watch: what was seen in this run; without it every dependence is taken to be there.
        """
        found: dict[str, list[str]] = {}
        if watch is not None:
            self.moved = False
        for name in {**self.late, **dict.fromkeys(self.blocks)}:
            own, others = self.recognised.drawn[name].parts, self.late.get(name, [])
            if watch is None:
                if name in self.late or not self._is_as_it_was(model_trace.nodes[name]):
                    found[name] = others
                continue
            prior = _prior_of(model_trace.nodes[name])  # before the test asks it for a density
            parts = {
                part: other for other in others for part in self.recognised.drawn[other].parts
            }
            seen = watch.reached_by(model_trace.nodes[name], {*own, *parts, *others})
            self.free.pop(name, None)
            if seen.intersection(own):
                by = {parts.get(part, part) for part in seen}
                found[name] = [other for other in others if other in by] or others
            elif is_foreign([model_trace.nodes[name]["fn"]]):
                self.moved = True  # what cannot be compared is watched
            else:
                self.free[name] = [x.detach().clone() if _is_tensor(x) else x for x in prior]
        return found

    def _is_as_it_was(self, site: Site) -> bool:
        """Whether a block's prior is the one that was seen to depend on nothing."""
        if site["name"] not in self.free:
            return False
        before, now = self.free[site["name"]], _prior_of(site)
        same = len(now) == len(before) and all(map(_same, before, now))
        self.moved |= not same
        return same


class Plans:
    """All plans of an ELBO, by what they depend on.

    A plan holds for one structure (names and types of all sites in their order) and one set of
    answers to what the structure leaves open, which is asked again in every run.

    Args:
        mean_field: "check" tests whether an exact KL is valid, "assume" takes it to be, "never"
            samples every site.
        sampled: the latents that are to be sampled in any case.
    """

    def __init__(self, mean_field: str, sampled: Collection[str] = ()) -> None:
        self.mean_field, self.sampled = mean_field, sampled
        self._layouts: dict[Any, Layout] = {}
        self._plans: dict[Any, Plan] = {}

    @property
    def watches(self) -> bool:
        """Whether the next run is to be watched: the first, and all if any structure asks."""
        if self.mean_field == "never":
            return False
        return not self._layouts or any(layout.watches for layout in self._layouts.values())

    def get(
        self,
        model_trace: Trace,
        guide_trace: Trace,
        guide: Any,
        infinite: Collection[str] = (),
        anew: bool = False,
    ) -> tuple[Plan, bool]:
        """The plan for a pair of traces, and whether it is a new one.

        Args:
            model_trace: of the model.
            guide_trace: of the guide.
            guide: the guide.
            infinite: latents whose exact KL is infinite in this run, which are to be sampled.
            anew: whether the plan at hand does not fit: a distribution has changed under the same
                types.
        """
        structure = structure_of(model_trace, guide_trace)
        if anew or structure not in self._layouts:
            self._layouts[structure] = self._layout(model_trace, guide_trace, guide)
        layout = self._layouts[structure]
        watch: Watch | None = getattr(guide_trace, "pyro_kl_watch", None)
        answers = layout.answers(model_trace, watch) if layout.asks else {}
        unseen = bool(layout.late) and watch is None and not _is_messenger(guide)
        key = structure, frozenset(answers), frozenset(infinite), unseen
        made = anew or key not in self._plans
        if made:
            plan = self._plan(layout, model_trace, guide_trace, answers, unseen)
            for name in infinite:
                plan.decisions[name] = _of_infinite(plan.decisions[name])
            self._plans[key] = plan
        return self._plans[key], made

    def _layout(self, model_trace: Trace, guide_trace: Trace, guide: Any) -> Layout:
        """Find out who draws what."""
        latents = [
            name
            for name, site in model_trace.nodes.items()
            if site["type"] == "sample" and not site["is_observed"]
        ]
        recognised = recognise(latents, model_trace, guide_trace, guide)
        drawn = recognised.drawn
        late = _late(latents, drawn, guide_trace) if self.mean_field == "check" else {}
        blocks = [
            name for name, how in drawn.items() if isinstance(how, JointBlock) and how.order > 0
        ]
        return Layout(recognised, late, blocks if self.mean_field != "never" else [])

    def _plan(
        self,
        layout: Layout,
        model_trace: Trace,
        guide_trace: Trace,
        dependent: Mapping[str, list[str]],
        unseen: bool,
    ) -> Plan:
        """Decide for each latent of the model.

        Args:
            layout: who draws what.
            model_trace: of the model.
            guide_trace: of the guide.
            dependent: the layout's answers in this run.
            unseen: whether nobody has looked at what depends on what: it will be the next time.
        """
        recognised = layout.recognised
        decisions: dict[str, Decision] = {}
        for name, how in recognised.drawn.items():
            if isinstance(how, JointBlock):
                how = replace(how, has_parents=name in dependent)
            if isinstance(how, FromPrior):
                decisions[name] = _from_prior(how)
            elif is_point(how, guide_trace):
                decisions[name] = _of_point(how, recognised.images.get(name, {}))
            elif self.mean_field == "never":
                decisions[name] = Decision(how, False, "monte carlo", reason='mean_field="never"')
            elif name in self.sampled:
                reason = f'exact={{"{name}": False}}'
                decisions[name] = Decision(how, False, "monte carlo", reason=reason)
            elif name in layout.late and name in dependent:
                decisions[name] = _invalid_decision(how, dependent[name], unseen)
            else:
                decisions[name] = _try_exact(how, model_trace, guide_trace)
        auxiliary, sites = recognised.auxiliary, guide_trace.nodes
        return Plan(
            decisions,
            auxiliary,
            _groups([*decisions, *auxiliary], recognised.images),
            undeclared=[name for name in auxiliary if _is_undeclared(sites[name])],
            enumerated=_enumerated(recognised.drawn, model_trace, guide_trace),
        )


def structure_of(model_trace: Trace, guide_trace: Trace) -> tuple[Any, ...]:
    """Names and types of all sites: what a plan depends on."""
    return tuple(
        (
            name,
            type(distribution),
            type(getattr(distribution, "base_dist", None)),
            site["is_observed"],
        )
        for trace in (model_trace, guide_trace)
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        for distribution in (site["fn"],)
    )


def _is_undeclared(site: Site) -> bool:
    """Whether a site of the guide alone is not said to be auxiliary."""
    infer = site["infer"]
    return not infer.get("is_auxiliary") and not infer.get("_deterministic")  # of log density 0


def _enumerated(
    drawn: Mapping[str, GuideSite], model_trace: Trace, guide_trace: Trace
) -> list[str]:
    """The latents that whoever draws them has marked for enumeration."""
    drawers = {
        name: (model_trace if isinstance(how, FromPrior) else guide_trace).nodes[name]
        for name, how in drawn.items()
    }
    return [name for name, site in drawers.items() if site["infer"].get("enumerate")]


# --- decisions ----------------------------------------------------------------------------------


def _from_prior(how: FromPrior) -> Decision:
    reason = (
        "missing in the guide: drawn from its prior, and -log p without a log q is in the loss"
    )
    return Decision(how, False, "prior", reason=reason, warns=True)


def _of_point(how: GuideSite, images: Mapping[str, str]) -> Decision:
    """A Delta: exact if its place is no random number."""
    if images:
        reason = "; ".join(
            f"{name}, which is not recognised: {why}" for name, why in images.items()
        )
        return Decision(how, False, "monte carlo", reason=f"image of the auxiliary site {reason}")
    return Decision(how, False, "point density", reason="the guide is a point")


def _invalid_decision(how: GuideSite, late: list[str], unseen: bool) -> Decision:
    if unseen:
        reason = f"the guide draws {', '.join(late)} from it or after it: sampled once, then asked"
        return Decision(how, False, "monte carlo", reason=reason)
    reason = f"its prior depends on {', '.join(late)}, which the guide draws from it or after it"
    return Decision(how, False, "monte carlo", reason=reason, warns=True)


def _of_infinite(decision: Decision) -> Decision:
    reason = 'its exact KL is infinite, and infinite="sample"'
    return Decision(decision.drawn, False, "monte carlo", reason=reason, warns=True)


def _try_exact(how: GuideSite, model_trace: Trace, guide_trace: Trace) -> Decision:
    """Exact if there is a formula."""
    try:
        with recording() as uses:
            how.kl(model_trace, guide_trace)
    except NotImplementedError as error:
        reason = str(error).split(". ")[0]
        return Decision(how, False, "monte carlo", reason=reason, warns=True)
    q, _ = without_mask(guide_trace.nodes[how.parts[-1]]["fn"])
    p, _ = without_mask(model_trace.nodes[how.name]["fn"])
    method, source = method_of(q, p, uses)
    reason = "the guide has mass where the prior has none" if method == "infinite" else how.word
    return Decision(how, True, method, source, reason)


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


# --- priors that stay as they are ---------------------------------------------------------------


def _prior_of(site: Site) -> list[Any]:
    """All that a site's distribution, scale and mask are made of."""
    return list(_leaves([site["fn"], site["scale"], site["mask"]]))


def _leaves(part: Any) -> Iterator[Any]:
    if isinstance(part, _InverseTransform):
        part = part.inv
    if isinstance(part, Distribution | Transform):
        yield type(part)
        for name, value in content(part).items():
            if name != "_validate_args":  # which `expand` sets
                yield from _leaves(value)
    elif isinstance(part, list | tuple) and not isinstance(part, torch.Size):
        for value in part:
            yield from _leaves(value)
    elif _is_tensor(part):
        yield _varying(part)
    elif not isinstance(part, torch.Size):  # more particles are no other prior
        yield part


def _varying(x: Tensor) -> Tensor:
    """A tensor without the dims along which it was expanded, as over particles."""
    dims = zip(x.shape, x.stride(), strict=True)
    index = [0 if size == 1 or (size and not stride) else slice(None) for size, stride in dims]
    return x[tuple(index)] if 0 in index else x


def _same(a: Any, b: Any) -> bool:
    if _is_tensor(a):
        return _is_tensor(b) and a.dtype == b.dtype and torch.equal(a, b)
    return not _is_tensor(b) and a == b


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


# --- order --------------------------------------------------------------------------------------


def _late(
    latents: list[str], drawn: Mapping[str, GuideSite], guide_trace: Trace
) -> dict[str, list[str]]:
    """The latents that fail the test by order, with the sites that are in the way."""
    index = {name: i for i, name in enumerate(guide_trace.nodes)}
    position: dict[str, tuple[float, int]] = {}
    for name, how in drawn.items():
        order = how.order if isinstance(how, JointBlock) else 0
        first = min((index[part] for part in how.parts), default=float("inf"))
        position[name] = first, order
    return {
        name: others
        for name, others in late_parents(latents, position).items()
        if others and not isinstance(drawn[name], FromPrior)
    }


def _is_messenger(guide: Any) -> bool:
    return isinstance(guide, GuideMessenger)
