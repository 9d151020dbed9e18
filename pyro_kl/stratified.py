"""Sampled KLs of mixtures: of each component as many samples as its weight says, in pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Laplace, MultivariateNormal, Normal

from .densities import log_prob_anywhere
from .estimate import Estimate
from .mixtures import components, is_mixture
from .shapes import broadcast_batch

__all__ = ["stratified"]

_SYMMETRIC = (Normal, Laplace, MultivariateNormal)


def stratified(p: Distribution, q: Distribution, num_samples: int) -> Estimate:
    """Estimate KL(p || q) of a mixture p, with its standard error; no gradient.

    The label of the component is not sampled: its expectation is a sum. Samples of symmetric
    components come in pairs x, 2 m - x, whose mean counts once.

    Args:
        p: a mixture.
        q: any law on the same space.
        num_samples: of all components together, at least 4 for each.
    """
    shape = broadcast_batch(p, q)
    log_a, parts = components(p)
    with torch.no_grad():
        weights = log_a.exp()
        largest = weights.reshape(-1, weights.shape[-1]).amax(0)
        counts = (num_samples * largest / largest.sum()).ceil().clamp(min=4).long() // 2 * 2
        value, variance = torch.zeros(shape), torch.zeros(shape)
        for k, n in enumerate(counts.tolist()):
            terms = _log_ratio(p, q, parts, k, n, shape)
            mean = terms.mean(0)
            spread = (terms - mean).square().sum(0) / (len(terms) - 1) / len(terms)
            weight = weights[..., k]
            counted = weight > 0
            value = value + torch.where(counted, weight * mean, 0.0)
            variance = variance + torch.where(counted, weight**2 * spread, 0.0)
    paired = "antithetic, " if isinstance(_inner(parts), _SYMMETRIC) else ""
    return Estimate(
        value=value,
        standard_error=torch.where(value.isfinite(), variance.sqrt(), math.inf),
        method="monte carlo (stratified)",
        num_samples=int(counts.sum()),
        reason=f"{paired}{int(counts.sum()):,} samples of p's components",
    )


def _log_ratio(
    p: Distribution, q: Distribution, parts: Distribution, k: int, n: int, shape: torch.Size
) -> Tensor:
    """Log p - log q at samples of component k, one for each independent draw."""
    wide = parts.expand(torch.Size((*shape, parts.batch_shape[-1])))
    event = len(parts.event_shape)
    symmetric = isinstance(_inner(parts), _SYMMETRIC)
    x = wide.sample(torch.Size((n // 2 if symmetric else n,))).select(-1 - event, k)
    if symmetric:
        loc = wide.mean.select(-1 - event, k)
        x = torch.cat((x, 2 * loc - x))
    terms = _log_density(p, x) - _log_density(q, x)
    return terms.reshape(2, n // 2, *shape).mean(0) if symmetric else terms


def _inner(law: Distribution) -> Distribution:
    return law.base_dist if isinstance(law, Independent) else law


def _log_density(law: Distribution, x: Tensor) -> Tensor:
    """Of a mixture by its components: Pyro's classes take no batch of values, or only some."""
    if not is_mixture(law):
        return log_prob_anywhere(law, x)
    log_weights, parts = components(law)
    at = x.unsqueeze(-1 - len(parts.event_shape))
    return (log_weights + log_prob_anywhere(parts, at)).logsumexp(-1)
