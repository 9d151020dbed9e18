"""What a user hears of a plan, once."""

from __future__ import annotations

from ..caller import warn
from .plan import Plan

__all__ = ["warn_of", "warn_of_settings"]


def warn_of(plan: Plan, told: set[str]) -> None:
    """One warning of each kind that names the sites that are sampled, or missing; each once."""
    infinite = [n for n, d in plan.decisions.items() if d.method == "infinite" and n not in told]
    if infinite:
        told.update(infinite)
        warn(
            f"The KL of {', '.join(infinite)} is infinite: the guide has mass where the prior has "
            "none. Let the guide draw from the prior's support, as an autoguide does.",
        )
    missing = [n for n, d in plan.decisions.items() if d.method == "prior" and n not in told]
    sampled = {
        name: decision.reason
        for name, decision in plan.decisions.items()
        if decision.warns and decision.method == "monte carlo" and name not in told
    }
    told.update(missing, sampled)
    if missing:
        warn(
            f"The model samples {', '.join(missing)}, which the guide does not: drawn from the "
            "prior, with a KL of 0, so that nothing is learnt of it. Sample it in the guide, or "
            "observe it in the model.",
        )
    if sampled:
        lines = "".join(f"\n  {name}: {reason}" for name, reason in sampled.items())
        warn(
            "The KL of these sites is sampled, as Trace_ELBO does; all others are exact:"
            f"{lines}\nTo have it exact, draw sites in the guide in the model's order, or "
            'register a formula; mean_field="never" samples all sites and is silent.',
        )


def warn_of_settings(plan: Plan, told: set[str]) -> None:
    """One warning that names the sites where model and guide differ in scale or mask."""
    differ = [name for name, agrees in plan.agrees.items() if not agrees]
    new = [name for name in differ if f"setting of {name}" not in told]
    if new:
        told.update(f"setting of {name}" for name in new)
        warn(
            f"Scale or mask of {', '.join(new)} differ between model and guide: each side keeps "
            "its own, so that the terms are no KL and the loss may be unbounded. Put "
            "poutine.scale and poutine.mask around both.",
        )
