"""Why the evidence and the KL to the posterior are unknown, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from . import pareto

#: From so many draws on 95 % intervals of close guides cover in 93 % of 1,000 cases or more.
#: Without draws of a wider guide, which see the tail better, that is 91 %.
FEWEST, FEWEST_ALONE = 300, 2000
#: A guide's log density is not that of its draws if sampled and exact KLs differ by so many
#: standard errors.
_DISAGREES = 5.0
#: The effective sample size of weights that are nearly equal, relative to the number of draws.
_NEARLY_EQUAL = 0.8

#: Words of a reason -> what to do about it. The last has the words of every other reason.
_ADVICE = {
    "is not that of its draws": "Trust nothing here before the guide's log density is mended.",
    "the guide never draws": (
        "The evidence of a part of the latents' values is missing. Give the guide's sites the "
        "supports of the model's sites; an autoguide does."
    ),
    "the draws never had": (
        "Make more draws, or give the guide's discrete sites probabilities that draws can show."
    ),
    "are too few": "Make more draws before anything here is trusted: give num_samples.",
    "the weights are nearly equal": (
        "The evidence cannot be told by these draws, though the guide may be good. Compare "
        "another guide, or draws of MCMC."
    ),
    "": (
        "Trust neither the guide's sds nor the weights: the posterior has mass where the "
        "guide draws almost nothing. Try a guide with correlations, write the model in "
        "another form (non-centred), or sample it by MCMC."
    ),
}


def advice(reason: str) -> str:
    """What to do where the KL is unknown for a reason."""
    return next(text for words, text in _ADVICE.items() if words in reason)


def disagreement(differences: Tensor, rounding: float, discrete: Iterable[str]) -> str:
    """Why sampled and exact KLs of the sites cannot both be right; empty if they can.

    Args:
        differences: of each draw of the guide.
        rounding: of their mean.
        discrete: the latents that have no density.
    """
    error = math.hypot(float(differences.std()) / math.sqrt(len(differences)), rounding)
    mean = float(differences.mean())
    if not math.isfinite(mean) or abs(mean) <= _DISAGREES * error:
        return ""
    differ = (
        f"sampled and exact KLs of the sites differ by {mean:.2g} nats, at a standard error of "
        f"{error:.2g}"
    )
    if names := ", ".join(discrete):
        return f"{differ}: the draws never had a value of {names} that the exact KL counts"
    return (
        f"{differ}, so that the guide's log density is not that of its draws (a Jacobian that "
        "lacks or has the wrong sign, say)"
    )


def too_heavy(khat: float, limit: float, with_wider: bool, effective: float) -> str:
    """Why the mean weight is unknown; empty if k-hat is below the limit.

    Args:
        khat: of all weights.
        limit: k-hat has to be below it.
        with_wider: whether draws of a wider guide are among them.
        effective: the effective sample size, without smoothing, relative to the number of draws.
    """
    if khat < limit:
        return ""
    whose = (
        "of all weights, those of a wider guide's draws too," if with_wider else "of the weights"
    )
    reason = f"the k-hat {whose} is {khat:.2f}, above {limit:.2f}"
    if effective > _NEARLY_EQUAL:
        return (
            f"{reason}, while the weights are nearly equal: not smoothed, they are worth "
            f"{effective:.0%} of the draws"
        )
    enough = pareto.enough_draws(khat)
    return f"{reason}: about {enough:,.0f} draws would be enough" if enough < math.inf else reason


def too_few(count: int, with_wider: bool) -> str:
    """Why an interval would not hold what it claims; empty if there are enough draws.

    Args:
        count: draws of the guide.
        with_wider: whether there are draws of a wider guide too.
    """
    fewest = FEWEST if with_wider else FEWEST_ALONE
    if count >= fewest:
        return ""
    return f"{count:,} draws are too few for a standard error that holds: {fewest:,} are enough"
