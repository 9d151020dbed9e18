"""Sampled estimates of the divergences next to the KL, for a comparison with exact values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..numerics.special.alpha_divergences import jensen_shannon_share
from ..registry.shapes import broadcast_batch, some_tensor
from ..wrappers.log_prob import log_prob_anywhere
from .draws import draw, log_density
from .estimate import Estimate
from .monte_carlo import expanded_to, monte_carlo, randomness, terms_at_samples
from .standard_error import Terms, estimate_of


def sampled_renyi(
    p: Distribution,
    q: Distribution,
    alpha: float,
    num_samples: int,
    generator: torch.Generator | None,
) -> Estimate:
    """The logarithm of a mean, over alpha - 1, with the standard error of the delta method.

    The mean is that of (q/p)^(1 - alpha) at samples of p, whose variance is finite for alpha from
    1/2 to 1; below 1/2 it is that of (p/q)^alpha at samples of q. Above 1 the variance is finite
    where the divergence of order 2 alpha - 1 is. Orders 0 and infinity are no such means.
    """
    if alpha in (0.0, math.inf):
        nothing = some_tensor(p).detach().new_full(broadcast_batch(p, q), math.nan)
        reason = f"order {alpha:g} is not the mean of a power, and is not sampled"
        return Estimate(nothing, nothing, "unknown", num_samples, reason)
    if alpha == 1.0:
        return monte_carlo(p, q, num_samples, generator=generator)
    if alpha < 0.5:
        mirrored = sampled_renyi(q, p, 1 - alpha, num_samples, generator)
        factor = alpha / (1 - alpha)
        return replace(
            mirrored,
            value=factor * mirrored.value,
            standard_error=factor * mirrored.standard_error,
            reason=mirrored.reason.replace("of p", "of q"),
        )
    mean = _mean(p, q, lambda d: torch.exp((alpha - 1) * d), num_samples, generator)
    slope = 1 / ((alpha - 1) * mean.value)
    return replace(
        mean,
        value=mean.value.log() / (alpha - 1),
        standard_error=(slope * mean.standard_error).abs(),
    )


def sampled_jensen_shannon(
    p: Distribution, q: Distribution, num_samples: int, generator: torch.Generator | None
) -> Estimate:
    """The mean of a function bounded by log 2, at samples of p and at samples of q."""

    def bounded(d: Tensor) -> Tensor:
        return jensen_shannon_share(torch.zeros_like(d), -d)

    halves = [_mean(a, b, bounded, num_samples, generator) for a, b in ((p, q), (q, p))]
    return _combined(halves, 0.5)


def sampled_jeffreys(
    p: Distribution, q: Distribution, num_samples: int, generator: torch.Generator | None
) -> Estimate:
    """The sum of the two sampled KLs."""
    halves = [monte_carlo(a, b, num_samples, generator=generator) for a, b in ((p, q), (q, p))]
    return _combined(halves, 1.0)


def _mean(
    p: Distribution,
    q: Distribution,
    terms_of: Callable[[Tensor], Tensor],
    num_samples: int,
    generator: torch.Generator | None,
) -> Estimate:
    shape = broadcast_batch(p, q)
    with torch.no_grad(), randomness(generator):
        terms: Terms = terms_at_samples(p, q, num_samples, terms_of, shape)
        one = torch.ones_like(terms.mean)
    reason = f"{num_samples:,} samples of p"
    return estimate_of(p, q, [(one, terms)], num_samples, "monte carlo", reason)


def _combined(halves: list[Estimate], weight: float) -> Estimate:
    first, second = halves
    doubts = [x.unreliable for x in halves if x.unreliable is not None]
    return Estimate(
        weight * (first.value + second.value),
        weight * torch.hypot(first.standard_error, second.standard_error),
        "monte carlo",
        num_samples=first.num_samples + second.num_samples,
        reason=f"{first.num_samples:,} samples of each",
        unreliable=None if not doubts else sum(doubts[1:], doubts[0]) > 0,
    )


def sampled_cross_entropy(
    p: Distribution, q: Distribution, num_samples: int, generator: torch.Generator | None
) -> Estimate:
    """The mean of -log q at samples of p; for q = p, the entropy."""
    shape = broadcast_batch(p, q)
    with torch.no_grad(), randomness(generator):
        x, at_end = draw(expanded_to(p, shape), num_samples)
        terms = Terms.of(-log_density(q, x, log_prob_anywhere), at_end)
        one = torch.ones_like(terms.mean)
    reason = f"{num_samples:,} samples of p"
    return estimate_of(p, q, [(one, terms)], num_samples, "monte carlo", reason)
