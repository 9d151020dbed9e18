"""Warnings about a plan, each of which is issued once."""

from __future__ import annotations

from collections.abc import Mapping

from ..messages import see
from ..registry.warnings import warn
from .guides.plan import Plan

INFINITE = (
    "The KL of {} is infinite: the guide has mass where the prior has none, or tails that are too "
    "heavy for the prior's. The loss is +inf, and its gradient is that of all other terms. Let "
    "the guide draw from the prior's support, as an autoguide does, or sample such a KL as "
    'Trace_ELBO does: give the ELBO infinite="sample".' + see("infinite-kl")
)
DIFFER = (
    "Scale or mask of {} differ between model and guide: each side keeps its own, so that the "
    "terms are no KL and the loss may be unbounded. Put poutine.scale and poutine.mask around "
    "both." + see("scale-and-mask")
)
_UNDECLARED = (
    "The guide samples {}, which the model does not sample as a latent variable: its log density "
    "is part of log q, as in Trace_ELBO. Sample it in the model, correct the name, or mark it in "
    'the guide by infer={{"is_auxiliary": True}} if it is a variable of the guide alone.'
    + see("site-only-in-guide")
)
_ENUMERATED = (
    'TraceKL_ELBO does not enumerate {}, which infer={{"enumerate": ...}} or config_enumerate '
    "requests: it is drawn from the guide, or from the prior where the guide does not sample it, "
    "as in Trace_ELBO; pyro_kl.TraceEnumKL_ELBO sums over its values, without the noise of these "
    "draws." + see("enumerated-site")
)
BASELINE = (
    "TraceEnumKL_ELBO has no baselines: that of {} is not used, as in TraceEnum_ELBO. Enumerate "
    "the site, or use TraceKL_ELBO, which subtracts it." + see("baseline")
)
_MISSING = (
    "The model samples {}, which the guide does not: drawn from the prior, and -log p stays in "
    "the loss, as in Trace_ELBO, where no log q is set against it. Sample it in the guide (from "
    "the prior, for a KL of 0), observe it in the model, or, if it is discrete, sum over its "
    'values: infer={{"enumerate": "parallel"}} in the model, and pyro_kl.TraceEnumKL_ELBO.'
    + see("site-only-in-model")
)


def warn_of(plan: Plan, warned: set[str]) -> None:
    """One warning of each kind, which names the sites that are sampled, or missing."""
    warn_of_sites(plan.undeclared, warned, _UNDECLARED)
    warn_of_sites(plan.enumerated, warned, _ENUMERATED)
    missing = [n for n, d in plan.decisions.items() if d.method == "prior"]
    warn_of_sites([n for n in missing if n not in plan.enumerated], warned, _MISSING)
    sampled = {
        name: decision.reason
        for name, decision in plan.decisions.items()
        if decision.warns and decision.method == "monte carlo" and name not in warned
    }
    warned.update(sampled)
    if sampled:
        lines = "".join(f"\n  {name}: {reason}" for name, reason in sampled.items())
        warn(
            "The KL of these sites is sampled, as Trace_ELBO does; all others are exact:"
            f"{lines}\nTo have it exact, draw sites in the guide in the model's order, or "
            'register a formula; mean_field="never" samples all sites and is silent.'
            + see("site-sampled"),
        )


def warn_of_sites(names: list[str], warned: set[str], message: str) -> None:
    """One warning for those of some sites that no earlier warning of this kind has named."""
    new = [name for name in names if f"{message}{name}" not in warned]
    if new:
        warned.update(f"{message}{name}" for name in new)
        warn(message.format(", ".join(new)))


def warn_of_likelihoods(reasons: Mapping[str, str], warned: set[str]) -> None:
    """One warning for the sites whose log likelihood stays that of the draw, against the wish."""
    new = {name: why for name, why in reasons.items() if f"likelihood {name}" not in warned}
    if new:
        warned.update(f"likelihood {name}" for name in new)
        lines = "".join(f"\n  {name}: {why}" for name, why in new.items())
        warn(
            f"The log likelihood of these sites is sampled, as without likelihood=exact:{lines}"
            + see("likelihood-sampled")
        )
