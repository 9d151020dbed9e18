"""From a pair of traces and a plan to the terms of the ELBO."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from pyro.distributions.util import is_identically_zero
from pyro.util import ignore_jit_warnings
from torch import Tensor

from ..messages import see
from ..numerics.concrete import is_recorded, is_step_recorded
from ..wrappers.masked import unmasked
from .balance import balanced, check_no_scores, stopped
from .expected_likelihood import METHOD, REASON
from .guides.mean_field import OwnDistribution
from .guides.plan import Decision, Plan
from .objective import Objective
from .settings import agree, inner_masks, lends_mask
from .site_batches import Member, PairAndMember, SiteBatch, in_batches
from .terms import Term, scaled
from .traces import (
    Site,
    Traces,
    compute_guide,
    compute_model,
    has_score_function,
    is_factor,
)

_DIFFER = "scale or mask differ between model and guide"
#: Methods whose KL is computed for each site on its own.
_ALONE = ("prior", "infinite", "point density")


@dataclass
class Collected:
    """The terms of one pair of traces.

    Attributes:
        single: terms on their own.
        batches: those of many sites between the same two families.
        continues: whether they belong to the same particle as those of the pair before.
    """

    single: list[Term]
    batches: list[SiteBatch]
    continues: bool = False
    _terms: list[Term] | None = None

    @property
    def terms(self) -> list[Term]:
        """All terms, taken out of their batches."""
        if self._terms is None:
            self._terms = self.single + [t for batch in self.batches for t in batch.terms()]
        return self._terms


def collect(
    plan: Plan,
    traces: Traces,
    every_density: bool,
    objective: Objective,
) -> Collected:
    """The terms of one pair of traces.

    Args:
        plan: as made for traces of this structure.
        traces: of model and guide.
        every_density: whether to compute the log densities of exact sites too.
        objective: has the weights of the two sides of a KL in its gradient.

    Raises:
        ValueError: kl_balance with a score function.
        NotImplementedError: the plan does not fit: a distribution has changed without a change of
            its class.
    """
    tracing = is_recorded()
    with ignore_jit_warnings() if tracing else nullcontext():
        check(plan, traces, tracing)
    compute_densities(plan, traces, every_density)
    terms: list[Term] = []
    for name in plan.observed:
        node = traces.model.nodes[name]
        terms.append(likelihood(node))
    pairs: list[PairAndMember] = []
    may_batch = not tracing or is_step_recorded()
    for name, how in plan.decisions.items():
        share = None if objective.kl_balance is None else objective.balance(name)
        pair = plain_pair(how, traces) if share is None and may_batch else None
        if pair is not None:
            pairs.append(pair)
        else:
            terms.append(latent(how, traces, share))
    batches, single = in_batches(pairs)
    terms += single
    for name in plan.auxiliary:
        terms.append(auxiliary(traces.guide.nodes[name]))
    if objective.kl_balance is not None:
        check_no_scores(terms)
    return Collected(terms, batches)


def check(plan: Plan, traces: Traces, tracing: bool) -> None:
    """Check that each latent is drawn as planned, and whether both sides agree on its settings."""
    for name, how in plan.decisions.items():
        if tracing and how.agrees is not None:  # the run before it was checked
            if not is_step_recorded():
                continue  # a traced run keeps the result of the run before it
        elif not how.site.holds(traces):
            raise NotImplementedError(
                f"{name} is no longer the image of its auxiliary site" + see("site-sampled")
            )
        how.agrees = agree(how, traces)
        if not how.agrees and name not in plan.disagreeing:
            plan.disagreeing.append(name)


def plain_pair(how: Decision, traces: Traces) -> PairAndMember | None:
    """The two distributions of a latent whose KL can be computed with those of others."""
    pair = how.site.univariate_pair(traces) if _is_plain(how, traces) else None
    if pair is None:
        return None
    node = traces.model.nodes[how.site.name]
    shape = node["fn"].batch_shape + node["fn"].event_shape
    return pair, Member(how, node["cond_indep_stack"], shape, pair.shape, pair.event_dims)


def _is_plain(how: Decision, traces: Traces) -> bool:
    """Whether a latent's term is its exact KL, without scale, mask and score function."""
    if not how.exact or not how.agrees or how.masked or how.method in _ALONE:
        return False
    node = traces.model.nodes[how.site.name]
    if node["mask"] is not None or isinstance(node["scale"], Tensor) or node["scale"] != 1:
        return False
    return "score_parts" not in traces.guide.nodes[how.site.name]


def compute_densities(plan: Plan, traces: Traces, every_density: bool) -> None:
    """Let Pyro compute the log densities that are needed."""
    # dictionaries and no sets: gradients are summed in the same order in every process
    of_model, of_guide = dict.fromkeys(plan.observed), dict.fromkeys(plan.auxiliary)
    for name, how in plan.decisions.items():
        if how.method == "prior":
            of_model[name] = None
        elif every_density or not how.exact or not how.agrees:
            of_model[name] = None
            of_guide.update(dict.fromkeys(how.site.parts))
        elif isinstance(how.site, OwnDistribution):
            if has_score_function(traces.guide.nodes[name]["fn"]):
                of_guide[name] = None
    compute_model(traces.model, of_model)
    if of_guide:
        compute_guide(traces.guide, of_guide)


# --- terms --------------------------------------------------------------------------------------


def _method_of_density(node: Site) -> str:
    if is_factor(node):
        return "factor"
    return "observed" if node["is_observed"] else "monte carlo"


def likelihood(node: Site) -> Term:
    """An observed site or a factor of the model adds its log density."""
    return Term.of(
        node, "likelihood", node["log_prob"],
        method=node.get(METHOD) or _method_of_density(node), reason=node.get(REASON, ""),
        total=node["log_prob_sum"],
    )  # fmt: skip


def auxiliary(node: Site) -> Term:
    """A site of the guide alone adds its log density to the penalty."""
    parts = node["score_parts"]
    return Term.of(
        node, "auxiliary", parts.log_prob, _entropy_term(parts),
        method=_method_of_density(node), reason="auxiliary site of the guide", score=_score(node),
    )  # fmt: skip


def _score(node: Site) -> Tensor | None:
    """The score function of a site whose density was computed, None if it has none."""
    if "score_parts" not in node or is_identically_zero(node["score_parts"].score_function):
        return None
    return node["score_parts"].score_function


def _entropy_term(parts: Any) -> Tensor:
    """The part of a log density whose gradient is pathwise."""
    term = parts.entropy_term
    return term if isinstance(term, Tensor) else torch.zeros_like(parts.log_prob)


def latent(how: Decision, traces: Traces, share: float | None = None) -> Term:
    """The KL of one latent.

    Args:
        how: it is computed.
        traces: of model and guide.
        share: alpha of KL balancing; None is the plain gradient.
    """
    term = _latent(how, traces)
    if share is None or how.method == "prior":
        return term
    return balanced(term, _latent(how, _with_stopped_prior(how.site.name, traces)), share)


def _latent(how: Decision, traces: Traces) -> Term:
    node = traces.model.nodes[how.site.name]
    if how.method == "prior":
        return _from_prior(how, node)
    drawn = traces.guide.nodes[how.site.name]
    mask = unmasked(node["fn"])[1] if how.masked else True
    method, source, dims, surrogate = how.method, how.source, None, None
    value = None if how.agrees else _apart(how, traces)
    sampled = value is None and not (how.exact and how.agrees)
    if sampled:
        value, surrogate = _sampled(how, traces)
        method, source = "monte carlo" if how.exact else how.method, ""
    elif value is None:
        pair = how.site.kl(traces)
        value, dims = scaled(pair.value, node, mask), pair.dims
    return Term.of(
        node, "latent", value, surrogate,
        method=method, source=source, reason=how.reason if how.agrees else _DIFFER,
        score=_score(drawn) if isinstance(how.site, OwnDistribution) else None,
        drawn=drawn, own_cost=sampled, dims=dims, mask=mask,
    )  # fmt: skip


def _apart(how: Decision, traces: Traces) -> Tensor | None:
    """s_q E log q - s_p E log p with scale and mask of each side, if both are known exactly."""
    if not how.exact or how.method == "infinite":
        return None
    node, drawn = (trace.nodes[how.site.name] for trace in traces)
    if inner_masks(node["fn"]) != [] or inner_masks(drawn["fn"]) != []:
        return None  # the KL would drop the elements that either inner mask drops
    try:
        entropy = how.site.entropy(traces.guide)
        cross = how.site.kl(traces).value + entropy
    except NotImplementedError:
        return None
    p_mask, q_mask = unmasked(node["fn"])[1], unmasked(drawn["fn"])[1]
    return scaled(cross, node, p_mask) - scaled(entropy, drawn, q_mask)


def _sampled(how: Decision, traces: Traces) -> tuple[Tensor, Tensor | None]:
    """Log q - log p at the draw, and the surrogate for its gradient if that is another."""
    node = traces.model.nodes[how.site.name]
    mask = node["mask"] if lends_mask(how.site, traces) else True
    log_p = node["log_prob"]
    value = how.site.scaled_log_q(traces.guide, mask) - log_p
    if not isinstance(how.site, OwnDistribution):
        return value, None
    parts = traces.guide.nodes[how.site.name]["score_parts"]
    if parts.entropy_term is parts.log_prob:
        return value, None
    entropy = _entropy_term(parts)
    if mask is not True:
        entropy = scaled(entropy, {"scale": 1.0, "mask": None}, mask)
    return value, entropy - log_p


def _from_prior(how: Decision, node: Site) -> Term:
    """A latent that only the model draws: -log p, without a log q."""
    scored = has_score_function(node["fn"])
    return Term.of(
        node, "latent", -node["log_prob"], method=how.method, reason=how.reason,
        score=node["unscaled_log_prob"] if scored else None,
    )  # fmt: skip


def _with_stopped_prior(name: str, traces: Traces) -> Traces:
    """The traces with a prior that no gradient reaches."""
    node = traces.model.nodes[name]
    distribution = stopped(node)
    node = {
        **node,
        "fn": distribution,
        "log_prob": scaled(distribution.log_prob(node["value"]), node),
    }
    return Traces(SimpleNamespace(nodes={**traces.model.nodes, name: node}), traces.guide)
