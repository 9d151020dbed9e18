"""ELBO, evidence and the KL to the posterior, from the log weights of draws.

There are draws of the guide, and fewer of a wider one. The weights w of all of them, against
their mixture m, have the evidence as their mean. Two terms of each draw of the guide have the ELBO
as their mean: its log weight l against the guide alone, and g, in which each KL is exact where it
can be. So c = l - g has a mean of zero over the guide, and h = guide / m - 1 over the mixture, and
so has the difference between the means of l guide / m over the mixture and of l over the guide:
these are control variates.

To first order KL(guide || posterior) = log mean(w) - mean(g) has the terms w / mean(w) - g, less
multiples of the control variates. Their standard deviation gives the standard error, so that what
ELBO and evidence have in common is not counted twice. Close to the posterior the terms of the KL
that remain, guide / m times (posterior / guide - 1 - l + mean(l)), are of second order at every
draw: the KL is known better than ELBO and evidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..divergence.estimate import Estimate
from . import pareto
from .doubts import disagreement, too_few, too_heavy

#: From this k-hat on the tail has the mean of its fitted distribution. Below it smoothing only
#: adds a bias.
SMOOTHED_FROM = 0.3
#: Differences are more than rounding errors if their sd is so many times as large.
_ABOVE_ROUNDING = 100.0
#: The parts of the draws for the bound that holds for any tail.
_PARTS = 20
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
        of_guide: the tail of the weights of the guide's draws.
        smoothed: the tail of the weights of all draws against their mixture.
        threshold: k-hat has to be below it.
        effective_sample_size: of the weights of the guide's draws.
    """

    elbo: Estimate
    log_evidence: Estimate
    kl_posterior: Estimate
    kl_at_least: float
    of_guide: pareto.Smoothed
    smoothed: pareto.Smoothed
    threshold: float
    effective_sample_size: float

    @property
    def khat(self) -> float:
        """Of the weights of the guide's draws."""
        return self.of_guide.shape


@dataclass(frozen=True)
class LogWeights:
    """Of draws of the guide, or of a wider guide; tensors of shape (draws,).

    Attributes:
        weights: log p(data, latents) - log q(latents); -inf where the model excludes a draw.
        ratios: log density of the wider guide minus log q(latents).
    """

    weights: Tensor
    ratios: Tensor


def estimate(
    drawn: LogWeights,
    wider: LogWeights,
    terms: Tensor,
    rounding: float = 0.0,
    wrong: str = "",
    discrete: Iterable[str] = (),
) -> Estimates:
    """The estimates from all draws.

    Args:
        drawn: of the guide.
        wider: of the wider guide; empty if there is none.
        terms: of the ELBO at the guide's draws, with exact KLs.
        rounding: of a density, relative to its logarithm.
        wrong: why the guide is known to have no such estimates; empty if that is not known.
        discrete: the latents that have no density.
    """
    count, more = len(terms), len(wider.weights)
    all_draws = count + more
    mixture = log_mixture(torch.cat([drawn.ratios, wider.ratios]), count / all_draws)
    against_guide = torch.cat([drawn.weights, wider.weights])
    raw = against_guide - mixture
    smoothed = _smooth(raw)
    limit = pareto.threshold(count)
    effective = _effective(raw) / all_draws
    heavy = too_heavy(smoothed.shape, limit, more > 0, effective)
    logs, log_evidence = raw, _log_mean(raw)
    if not heavy and smoothed.shape >= SMOOTHED_FROM:
        logs = smoothed.log_weights(raw, truncated=False)
        log_evidence = _with_tail_mean(logs, smoothed)

    differences = drawn.weights - terms
    noise = rounding * float(terms.abs().mean())
    wrong = wrong or disagreement(differences, noise, discrete)
    doubt = wrong or too_few(count, more > 0) or heavy
    controls = []
    # rounding errors have a mean that is not zero
    if float(differences.std()) > _ABOVE_ROUNDING * noise:
        controls.append(_of_guide(differences, more))
    if more:
        controls += _mixture_controls(against_guide, mixture, count)
    elbo, elbo_left = _controlled(_of_guide(terms, more), controls, count)
    weight = (logs - _log_mean(logs)).exp() / all_draws
    one, weight_left = _controlled(weight, controls, count)
    if one > 0:
        log_evidence += math.log(one)
    factor = pareto.error_factor(smoothed.shape, all_draws)

    def result(value: float, left: Tensor, factor: float, doubt: str) -> Estimate:
        if doubt:
            value, factor = math.nan, math.nan
        error = factor * math.hypot(_error(left, count), rounding * abs(elbo))
        return Estimate(
            torch.tensor(value, dtype=torch.float64),
            torch.tensor(error, dtype=torch.float64),
            "unknown" if doubt else "monte carlo",
            all_draws,
            doubt,
        )

    of_guide = _smooth(drawn.weights)
    found = Estimates(
        elbo=result(elbo, elbo_left, 1.0, ""),
        log_evidence=result(log_evidence, weight_left, factor, doubt),
        kl_posterior=result(log_evidence - elbo, weight_left - elbo_left, factor, doubt),
        kl_at_least=0.0,
        of_guide=of_guide,
        smoothed=smoothed,
        threshold=limit,
        effective_sample_size=_effective(of_guide.log_weights(drawn.weights)),
    )
    if not math.isfinite(elbo):
        return replace(found, kl_posterior=_infinite(drawn.weights), kl_at_least=math.inf)
    upper = elbo + _QUANTILE * float(found.elbo.standard_error)
    return replace(found, kl_at_least=max(0.0, _evidence_at_least(raw, count) - upper))


def _smooth(log_weights: Tensor) -> pareto.Smoothed:
    """The tail, whose shape is -inf if all of its weights are equal, as with few states."""
    smoothed = pareto.smooth(log_weights)
    if smoothed.cut == 0:
        return replace(smoothed, shape=-math.inf)
    return smoothed


def log_mixture(ratios: Tensor, share: float) -> Tensor:
    """The log density of the mixture minus that of the guide, which has some share of it."""
    if share == 1.0:
        return torch.zeros_like(ratios)
    guide = torch.full_like(ratios, math.log(share))
    return torch.logaddexp(guide, ratios + math.log1p(-share))


def _of_guide(terms: Tensor, more: int) -> Tensor:
    """Terms of all draws whose sum is the mean over the guide's draws."""
    return torch.cat([terms / len(terms), terms.new_zeros(more)])


def _mixture_controls(against_guide: Tensor, mixture: Tensor, count: int) -> list[Tensor]:
    """Terms whose sums are zero, because the mixture's draws have the guide's means too.

    Args:
        against_guide: log weights of all draws against the guide.
        mixture: log density of the mixture minus that of the guide.
        count: the number of the guide's draws.
    """
    draws = len(mixture)
    centred = against_guide - against_guide[:count].mean()
    by_guide = _of_guide(centred[:count], draws - count)
    return [(-mixture).expm1() / draws, centred * (-mixture).exp() / draws - by_guide]


def _controlled(terms: Tensor, controls: list[Tensor], count: int) -> tuple[float, Tensor]:
    """The sum of terms by regression on controls whose sums are zero, and what is left of each.

    Args:
        terms: of the guide's draws, and then of the wider one's.
        controls: of the same shape.
        count: the number of the guide's draws. Each kind has a mean of its own.
    """
    columns = [x for x in controls if math.isfinite(float(x.abs().sum()))]
    if not columns or not math.isfinite(float(terms.sum())):
        return float(terms.sum()), terms
    control = torch.stack(columns, -1)
    moved = torch.cat([part - part.mean(0) for part in _kinds(control, count)])
    by = torch.linalg.pinv(moved.T @ moved, hermitian=True) @ (moved.T @ terms)
    left = terms - control @ by
    return float(left.sum()), left


def _error(left: Tensor, count: int) -> float:
    """The standard error of a sum of terms of two kinds of draws."""
    return math.sqrt(sum(len(part) * float(part.var()) for part in _kinds(left, count)))


def _kinds(x: Tensor, count: int) -> list[Tensor]:
    return [x[:count]] if len(x) == count else [x[:count], x[count:]]


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


def _evidence_at_least(logs: Tensor, count: int) -> float:
    """A bound on the log evidence from below, wrong with a probability of `_LEVEL` at most.

    The mean weight of each part of the draws is an unbiased estimate of the evidence Z and not
    negative, so that it is above Z exp(a) with a probability of exp(-a) at most (Markov). That all
    parts are above it has the probability exp(-a parts).

    Args:
        logs: log weights of the guide's draws, and then of the wider one's.
        count: the number of the guide's draws.

    Reference:
        Gogate, Bidyuk & Dechter (2007), "Studies in lower bounding probability of evidence using
        the Markov inequality".
    """
    number = min(_PARTS, count, len(logs) - count or count)
    kinds = [part.tensor_split(number) for part in _kinds(logs, count)]
    shares = [math.log(len(kind) / len(logs)) for kind in _kinds(logs, count)]
    lowest = min(
        float(
            torch.tensor([s + _log_mean(x) for s, x in zip(shares, part, strict=True)]).logsumexp(
                0
            )
        )
        for part in zip(*kinds, strict=True)
    )
    return lowest + math.log(_LEVEL) / number


def _infinite(log_weights: Tensor) -> Estimate:
    outside = int(log_weights.isneginf().sum())
    reason = f"{outside:,} draws are where the posterior has no density"
    if not outside:
        reason = "that of a site to its prior is, though no draw shows it"
    return Estimate(
        torch.tensor(math.inf, dtype=torch.float64),
        torch.tensor(math.inf, dtype=torch.float64),
        "infinite",
        len(log_weights),
        reason,
    )
