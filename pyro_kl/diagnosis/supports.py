"""Whether a guide can draw all that the prior can."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.distributions import Independent, kl_divergence

from ..elbo.guides.plan import Plan
from ..elbo.guides.recognise import is_delta
from ..elbo.traces import Traces
from ..wrappers.circle import ends_of
from ..wrappers.transformed.supports import bounds

#: Ends of supports are equal if they differ by so much, relative to their size or to 1.
_ROUNDING = 1e-5


def lacking(plan: Plan, traces: Traces) -> str:
    """Why the guide's draws miss a part of the evidence; empty if they are not known to.

    No weight shows it: the draws that would have it are never made. So the supports of guide and
    prior are compared, and probabilities of zero.

    Args:
        plan: which sites are latents.
        traces: of one run of model and guide.
    """
    names = [name for name, prior, guide in _pairs(plan, traces) if _lacks(prior, guide)]
    if not names:
        return ""
    return f"the guide never draws some values of {', '.join(names)} that the prior draws"


def exceeding(plan: Plan, traces: Traces) -> bool:
    """Whether the guide draws what the prior cannot, with arguments as for `lacking`."""
    return any(_lacks(guide, prior) for _, prior, guide in _pairs(plan, traces))


def _pairs(plan: Plan, traces: Traces) -> Iterator[tuple[str, Any, Any]]:
    """Each latent that the guide draws itself, with its distributions in model and guide."""
    for name in plan.decisions:
        guide = traces.guide.nodes[name]["fn"]
        if not is_delta(guide):
            yield name, traces.model.nodes[name]["fn"], guide


def _lacks(prior: Any, guide: Any) -> bool:
    """Whether the guide has no mass where the prior has some, as far as that is known."""
    prior, guide = _without_events(prior), _without_events(guide)
    try:
        if prior.has_enumerate_support and guide.has_enumerate_support:
            # over finitely many values
            return bool(kl_divergence(prior, guide).isposinf().any())
        own, theirs = (_ends(x) for x in (guide, prior))
    except (NotImplementedError, ValueError, RuntimeError, AttributeError):
        return False
    if own is None or theirs is None:
        return False
    (low, high), (lowest, highest) = (map(torch.as_tensor, ends) for ends in (own, theirs))
    return bool(_is_above(low, lowest).any() or _is_above(highest, high).any())


def _ends(distribution: Any) -> Any:
    if distribution.support.is_discrete:
        return bounds(distribution.support)
    return ends_of(distribution)


def _is_above(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Whether a > b by more than rounding; no infinite end is above an equal one."""
    room = _ROUNDING * torch.where(b.isinf(), 0.0, 1 + b.abs())
    return a > b + room


def _without_events(distribution: Any) -> Any:
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution
