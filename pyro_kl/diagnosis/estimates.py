"""ELBO, evidence and the KL to the posterior, from the log weights of draws.

Two terms of each draw have the ELBO as their mean: its log weight l, and g, in which each KL is
exact where it can be. So c = l - g has a mean of zero and is a control variate, for the ELBO as for
the evidence. With weights w, the KL to the posterior is, to first order, log mean(w) - mean(g) with
the terms

    w / mean(w) - g - b c,

whose standard deviation gives the standard error: what ELBO and evidence have in common is not
counted twice. Close to the posterior w is about 1 + l - mean(l): then b is close to 1, the terms
are of second order, and the KL is known much better than ELBO and evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..divergence.estimate import Estimate
from . import pareto

#: From this k-hat on the tail has the mean of its fitted distribution. Below it smoothing only
#: adds a bias.
SMOOTHED_FROM = 0.3
#: The parts of the draws for the bound that holds for any tail.
_PARTS = 10
#: The probability with which each of the two numbers in that bound is wrong, and its quantile.
_LEVEL, _QUANTILE = 0.025, 1.96


@dataclass(frozen=True)
class Estimates:
    """What the draws say about the fit as a whole.

    Attributes:
        elbo: nats.
        log_evidence: nats; nan where it is unknown.
        kl_posterior: KL(guide || posterior) in nats; nan where it is unknown.
        kl_at_least: KL(guide || posterior) is larger with a probability of 95 %, for any tail.
        smoothed: the tail of the weights.
        threshold: k-hat has to be below it.
        effective_sample_size: of the weights.
    """

    elbo: Estimate
    log_evidence: Estimate
    kl_posterior: Estimate
    kl_at_least: float
    smoothed: pareto.Smoothed
    threshold: float
    effective_sample_size: float


def estimate(log_weights: Tensor, terms: Tensor, rounding: float = 0.0) -> Estimates:
    """The estimates from all draws.

    Args:
        log_weights: of shape (draws,); -inf where model or data exclude a draw.
        terms: of the ELBO, with exact KLs; of the same shape.
        rounding: of a density, relative to its logarithm.
    """
    count = len(log_weights)
    smoothed = pareto.smooth(log_weights)
    if bool((log_weights == log_weights[0]).all()):
        smoothed = replace(smoothed, shape=-math.inf)
    limit = pareto.threshold(count)
    known = smoothed.shape < limit
    logs, log_evidence = log_weights, _log_mean(log_weights)
    if known and smoothed.shape >= SMOOTHED_FROM:
        logs = smoothed.log_weights(log_weights, truncated=False)
        log_evidence = _with_tail_mean(logs, smoothed)
    weight = (logs - _log_mean(logs)).exp()
    control = log_weights - terms
    elbo, of_elbo = _controlled(terms, control)
    one, of_weight = _controlled(weight, control)
    log_evidence += one - 1.0  # to first order
    factor = pareto.error_factor(smoothed.shape, count) if known else math.nan

    def result(value: float, of_draws: Tensor, factor: float) -> Estimate:
        error = factor * math.hypot(float(of_draws.std()) / math.sqrt(count), rounding * abs(elbo))
        reason = "" if known or factor == 1 else _too_heavy(smoothed.shape, limit)
        return Estimate(
            torch.tensor(value if error == error else math.nan, dtype=torch.float64),
            torch.tensor(error, dtype=torch.float64),
            "unknown" if reason else "monte carlo",
            count,
            reason,
        )

    found = Estimates(
        elbo=result(elbo, of_elbo, 1.0),
        log_evidence=result(log_evidence, of_weight, factor),
        kl_posterior=result(log_evidence - elbo, of_weight - of_elbo, factor),
        kl_at_least=0.0,
        smoothed=smoothed,
        threshold=limit,
        effective_sample_size=_effective(smoothed.log_weights(log_weights)),
    )
    if not math.isfinite(elbo):
        return replace(found, kl_posterior=_infinite(log_weights, count), kl_at_least=math.inf)
    upper = elbo + _QUANTILE * float(found.elbo.standard_error)
    return replace(found, kl_at_least=max(0.0, _evidence_at_least(log_weights) - upper))


def _controlled(terms: Tensor, control: Tensor) -> tuple[float, Tensor]:
    """The mean of terms by regression on a control variate, and what is left of each term."""
    moved = control - control.mean()
    variance = float(moved.square().mean())
    if not variance > 0 or not math.isfinite(variance):
        return float(terms.mean()), terms
    by = float((moved * terms).mean()) / variance
    return float((terms - by * control).mean()), terms - by * control


def _log_mean(logs: Tensor) -> float:
    return float(logs.logsumexp(0)) - math.log(len(logs))


def _with_tail_mean(logs: Tensor, smoothed: pareto.Smoothed) -> float:
    """The log of the mean weight, where the tail has the mean of its fitted distribution."""
    body = torch.ones(len(logs), dtype=torch.bool)
    body[smoothed.order] = False
    tail = smoothed.log_tail_mean() + math.log(len(smoothed.order))
    together = torch.stack([logs[body].logsumexp(0), torch.tensor(tail, dtype=logs.dtype)])
    return float(together.logsumexp(0)) - math.log(len(logs))


def _effective(logs: Tensor) -> float:
    return math.exp(2 * float(logs.logsumexp(0)) - float((2 * logs).logsumexp(0)))


def _evidence_at_least(log_weights: Tensor) -> float:
    """A bound on the log evidence from below, wrong with a probability of `_LEVEL` at most.

    The mean weight of each part is an unbiased estimate of the evidence Z and not negative, so
    that it is above Z exp(a) with a probability of exp(-a) at most (Markov). That all parts are
    above it has the probability exp(-a parts).

    Reference: Gogate, Bidyuk & Dechter (2007), Studies in lower bounding probability of evidence
    using the Markov inequality.
    """
    lowest = min(_log_mean(part) for part in log_weights.tensor_split(_PARTS) if len(part))
    return lowest + math.log(_LEVEL) / min(_PARTS, len(log_weights))


def _too_heavy(khat: float, limit: float) -> str:
    enough = pareto.enough_draws(khat)
    more = f": about {enough:,.0f} draws would be enough" if math.isfinite(enough) else ""
    return f"k-hat {khat:.2f} is above {limit:.2f}, the weights' tail is too heavy{more}"


def _infinite(log_weights: Tensor, count: int) -> Estimate:
    outside = int(log_weights.isneginf().sum())
    reason = f"{outside:,} draws are where the posterior has no density"
    return Estimate(
        torch.tensor(math.inf, dtype=torch.float64),
        torch.tensor(math.inf, dtype=torch.float64),
        "infinite",
        count,
        reason,
    )
