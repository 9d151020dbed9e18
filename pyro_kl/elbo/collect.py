"""From a pair of traces and a plan to the terms of the ELBO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from pyro.distributions.util import is_identically_zero
from pyro.util import ignore_jit_warnings
from torch import Tensor

from .balance import balanced, stopped
from .guides.mean_field import FromPrior, OwnDistribution, UnivariatePair
from .guides.plan import Decision, Plan
from .site_batches import SiteBatch, batches
from .terms import (
    Term,
    both_masks,
    inner_masks,
    same_inner_masks,
    same_setting,
    scaled,
    without_mask,
)
from .traces import Site, Trace, compute_guide, compute_model, has_score_function

_DIFFER = "scale or mask differ between model and guide"


@dataclass
class Collected:
    """The terms of one pair of traces, those of many alike sites in batches.

    Attributes:
        single: terms on their own.
        batches: the rest.
    """

    single: list[Term]
    batches: list[SiteBatch]
    _terms: list[Term] | None = None

    @property
    def terms(self) -> list[Term]:
        """All terms, taken out of their batches."""
        if self._terms is None:
            self._terms = self.single + [t for batch in self.batches for t in batch.terms()]
        return self._terms


def collect(
    plan: Plan,
    model_trace: Trace,
    guide_trace: Trace,
    every_density: bool = False,
    balance: Callable[[str], float | None] = lambda name: None,
) -> Collected:
    """The terms of one pair of traces.

    Args:
        plan: as made for traces of this structure.
        model_trace: of the model.
        guide_trace: of the guide.
        every_density: whether to compute the log densities of exact sites too, for whoever
            compares.
        balance: latent -> weight of its prior's side in the gradient; None leaves it alone.

    Raises:
        NotImplementedError: the plan does not fit: a distribution has changed under the same
            types.
    """
    tracing = bool(torch._C._get_tracing_state())
    for name, decision in plan.decisions.items():
        if tracing and name in plan.agrees:
            continue  # a trace follows what the run before it has found
        with ignore_jit_warnings():
            if not decision.drawn.holds(model_trace, guide_trace):
                raise NotImplementedError(f"{name} is no longer the image of its auxiliary site")
            plan.agrees[name] = _agrees(name, decision, model_trace, guide_trace)
    _compute_densities(plan, model_trace, guide_trace, every_density)
    terms = [
        _likelihood(name, site)
        for name, site in model_trace.nodes.items()
        if site["type"] == "sample" and site["is_observed"] and not is_deterministic(site)
    ]
    plains = []
    for name, decision in plan.decisions.items():
        plain, share = None, balance(name)
        if not tracing and share is None:
            plain = _plain(name, decision, plan, model_trace, guide_trace)
        if plain is None:
            term = _latent(name, decision, plan, model_trace, guide_trace)
            if share is not None and decision.method != "prior":
                fixed = _with_stopped_prior(name, model_trace)
                other = _latent(name, decision, plan, fixed, guide_trace)
                term = balanced(term, other, share)
            terms.append(term)
        else:
            plains.append((plain, _without_value(name, decision, model_trace.nodes[name])))
    made, left = batches(plains)
    terms += [
        _latent(term.name, plan.decisions[term.name], plan, model_trace, guide_trace)
        for _, term in left
    ]
    terms += [_auxiliary(name, guide_trace.nodes[name]) for name in plan.auxiliary]
    return Collected(terms, made)


def _plain(
    name: str, decision: Decision, plan: Plan, model_trace: Trace, guide_trace: Trace
) -> UnivariatePair | None:
    """The distributions of a site that may be computed together with others."""
    site = model_trace.nodes[name]
    if not plan.agrees[name] or not decision.exact or decision.method in _ALONE:
        return None
    if site["mask"] is not None or isinstance(site["scale"], Tensor) or site["scale"] != 1:
        return None
    if decision.drawn.parts[-1] == decision.drawn.parts[0] and _score_possible(guide_trace, name):
        return None
    return decision.drawn.univariate_pair(model_trace, guide_trace)


_ALONE = ("prior", "infinite", "point density")


def _score_possible(guide_trace: Trace, name: str) -> bool:
    return has_score_function(guide_trace.nodes[name]["fn"])


def _without_value(name: str, decision: Decision, site: Site) -> Term:
    """The term of a latent but for its numbers."""
    nothing: Any = None
    return Term(
        name, "latent", nothing, nothing,
        frames=site["cond_indep_stack"], method=decision.method, source=decision.source,
        reason=decision.reason, own_cost=False, shape=_shape(site),
    )  # fmt: skip


def is_deterministic(site: Site) -> bool:
    """Whether a site is a pyro.deterministic statement."""
    return bool(site["infer"].get("_deterministic"))


def _is_sampled(name: str, decision: Decision, plan: Plan) -> bool:
    """Whether a latent's term is, or may be, made of log densities at its value."""
    return not decision.exact or (decision.method != "prior" and not plan.agrees[name])


def _apart(name: str, decision: Decision, model_trace: Trace, guide_trace: Trace) -> Tensor | None:
    """s_q E log q - s_p E log p with scale and mask of each side, if both are known exactly."""
    if not decision.exact or decision.method == "infinite":
        return None
    if any(inner_masks(trace.nodes[name]["fn"]) != [] for trace in (model_trace, guide_trace)):
        return None  # the KL would leave out what either side does
    try:
        entropy = decision.drawn.entropy(guide_trace)
        cross = decision.drawn.kl(model_trace, guide_trace).value + entropy
    except NotImplementedError:
        return None
    site, guide_site = model_trace.nodes[name], guide_trace.nodes[name]
    p_mask, q_mask = without_mask(site["fn"])[1], without_mask(guide_site["fn"])[1]
    return scaled(cross, site, p_mask) - scaled(entropy, guide_site, q_mask)


def _compute_densities(
    plan: Plan, model_trace: Trace, guide_trace: Trace, every_density: bool
) -> None:
    """Let Pyro compute the densities that are needed."""
    of_model = {
        name
        for name, site in model_trace.nodes.items()
        if site["type"] == "sample" and site["is_observed"] and not is_deterministic(site)
    }
    of_guide = set(plan.auxiliary)
    for name, decision in plan.decisions.items():
        if decision.method == "prior":
            of_model.add(name)
        elif every_density or _is_sampled(name, decision, plan):
            of_model.add(name)
            of_guide.update(decision.drawn.parts)
        elif isinstance(decision.drawn, OwnDistribution):
            if has_score_function(guide_trace.nodes[name]["fn"]):
                of_guide.add(name)
    compute_model(model_trace, of_model)
    compute_guide(guide_trace, of_guide)


# --- scale and mask -----------------------------------------------------------------------------


def _guide_mask(name: str, model_trace: Trace, guide_trace: Trace, parts: Sequence[str]) -> Any:
    """A mask that the guide should have had: what `obs_mask` says is observed is not latent."""
    mask = model_trace.nodes[name]["mask"]
    given = any(guide_trace.nodes[part]["mask"] is not None for part in parts)
    if given or mask is None or not name.endswith("_unobserved"):
        return None
    return mask if name[: -len("_unobserved")] + "_observed" in model_trace.nodes else None


def _agrees(name: str, decision: Decision, model_trace: Trace, guide_trace: Trace) -> bool:
    """Whether model and guide have the same scale and mask at a latent."""
    if isinstance(decision.drawn, FromPrior):
        return True
    site, parts = model_trace.nodes[name], decision.drawn.parts
    lent = _guide_mask(name, model_trace, guide_trace, parts)
    p_mask = without_mask(site["fn"])[1]
    for part in parts:
        other = guide_trace.nodes[part]
        mask = other["mask"] if lent is None else lent
        if not same_setting(other["scale"], site["scale"]) or not same_setting(mask, site["mask"]):
            return False
    distribution, prior = guide_trace.nodes[parts[-1]]["fn"], site["fn"]
    if not same_inner_masks(distribution, prior):
        return False
    q_mask = without_mask(distribution)[1]
    return (q_mask is None and p_mask is None) or same_setting(q_mask, p_mask)


# --- terms --------------------------------------------------------------------------------------


def _shape(site: Site) -> tuple[int, ...]:
    """Batch and event shape of a site; a factor has no event."""
    distribution = site["fn"]
    with ignore_jit_warnings():  # sizes are tensors while a function is traced
        shape = (
            distribution.batch_shape
            if _is_factor(site)
            else distribution.batch_shape + distribution.event_shape
        )
        return tuple(map(int, shape))


def _is_factor(site: Site) -> bool:
    return type(site["fn"]).__name__ == "Unit"


def _method_of_density(site: Site) -> str:
    if _is_factor(site):
        return "factor"
    return "observed" if site["is_observed"] else "monte carlo"


def _likelihood(name: str, site: Site) -> Term:
    return Term(
        name, "likelihood", site["log_prob"], site["log_prob"],
        frames=site["cond_indep_stack"], method=_method_of_density(site),
        scale=site["scale"], mask=site["mask"], shape=_shape(site),
    )  # fmt: skip


def _auxiliary(name: str, site: Site) -> Term:
    """A site of the guide alone adds its log density to the penalty."""
    parts = site["score_parts"]
    entropy = _as_tensor(parts.entropy_term, parts.log_prob)
    return Term(
        name, "auxiliary", parts.log_prob, entropy,
        frames=site["cond_indep_stack"], method=_method_of_density(site),
        reason="auxiliary site of the guide",
        score=_score(site), score_frames=site["cond_indep_stack"],
        scale=site["scale"], mask=site["mask"], shape=_shape(site),
    )  # fmt: skip


def _score(site: Site) -> Tensor | None:
    """The score function of a site whose density was computed, None if it has none."""
    if "score_parts" not in site or is_identically_zero(site["score_parts"].score_function):
        return None
    return site["score_parts"].score_function


def _as_tensor(value: Any, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.zeros_like(like)


def _latent(
    name: str, decision: Decision, plan: Plan, model_trace: Trace, guide_trace: Trace
) -> Term:
    """The KL of one latent."""
    site = model_trace.nodes[name]
    if decision.method == "prior":
        return _from_prior(name, decision, site)
    guide_site = guide_trace.nodes[name]
    parts = decision.drawn.parts
    lent = _guide_mask(name, model_trace, guide_trace, parts)
    apart, dims = None, None
    if not plan.agrees[name]:
        apart = _apart(name, decision, model_trace, guide_trace)
    if apart is not None:
        value = surrogate = apart
    elif _is_sampled(name, decision, plan):
        value, surrogate = _sampled(decision, site, guide_trace, lent)
    else:
        pair = decision.drawn.kl(model_trace, guide_trace)
        _, inner = without_mask(site["fn"])
        value = scaled(pair.value, site, inner)
        surrogate, dims = value, pair.dims
    own = isinstance(decision.drawn, OwnDistribution)
    sampled = dims is None and apart is None
    return Term(
        name, "latent", value, surrogate,
        frames=site["cond_indep_stack"],
        method="monte carlo" if sampled and decision.exact else decision.method,
        source="" if sampled else decision.source,
        reason=decision.reason if plan.agrees[name] else _DIFFER,
        score=_score(guide_site) if own else None,
        score_frames=guide_site["cond_indep_stack"],
        own_cost=sampled, dims=dims, scale=site["scale"],
        mask=both_masks(site["mask"], without_mask(site["fn"])[1]), shape=_shape(site),
    )  # fmt: skip


def _with_stopped_prior(name: str, model_trace: Trace) -> Trace:
    """The trace with a prior that no gradient reaches."""
    site = model_trace.nodes[name]
    distribution = stopped(site)
    site = {
        **site,
        "fn": distribution,
        "log_prob": scaled(distribution.log_prob(site["value"]), site),
    }
    made: Any = SimpleNamespace(nodes={**model_trace.nodes, name: site})
    return made


def _from_prior(name: str, decision: Decision, site: Site) -> Term:
    """A latent that only the model draws: -log p, with no log q to set against it."""
    value = -site["log_prob"]
    scored = has_score_function(site["fn"])
    return Term(
        name, "latent", value, value,
        frames=site["cond_indep_stack"], method=decision.method, reason=decision.reason,
        score=site["unscaled_log_prob"] if scored else None,
        score_frames=site["cond_indep_stack"],
        scale=site["scale"], mask=site["mask"], shape=_shape(site),
    )  # fmt: skip


def sampled_log_q(decision: Decision, guide_trace: Trace, lent: Any = None) -> Tensor:
    """Log q at the value, scaled and masked, of the site's batch shape."""
    total: Any = 0.0
    for log_q, site in decision.drawn.log_q(guide_trace):
        total = total + scaled(log_q, site, lent)
    return total


def _sampled(
    decision: Decision, site: Site, guide_trace: Trace, lent: Any
) -> tuple[Tensor, Tensor]:
    """Log q - log p at the value; and what is differentiated, without the score function."""
    log_q, log_p = sampled_log_q(decision, guide_trace, lent), site["log_prob"]
    value = log_q - log_p
    if isinstance(decision.drawn, OwnDistribution):
        parts = guide_trace.nodes[decision.drawn.name]["score_parts"]
        if parts.entropy_term is not parts.log_prob:
            entropy = _as_tensor(parts.entropy_term, parts.log_prob)
            if lent is not None:
                entropy = scaled(entropy, {"scale": 1.0, "mask": None}, lent)
            return value, entropy - log_p
    return value, value
