"""Sampled KLs of mixtures: of each component as many samples as its weight says, in pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Laplace, MultivariateNormal, Normal

from ..registry.shapes import broadcast_batch
from ..registry.subclasses import is_a
from ..wrappers.log_prob import log_prob_anywhere
from .draws import Terms, draw, estimate_of, log_density
from .estimate import Estimate
from .mixtures import components, is_mixture

_SYMMETRIC = (Normal, Laplace, MultivariateNormal)


def stratified(p: Distribution, q: Distribution, num_samples: int) -> Estimate:
    """Estimate KL(p || q) of a mixture p, with its standard error; no gradient.

    The label of the component is not sampled: its expectation is a sum. Samples of symmetric
    components come in pairs x, 2 m - x, whose mean counts once.

    Args:
        p: a mixture.
        q: any distribution on the same space.
        num_samples: of all components together, at least 4 for each.
    """
    shape = broadcast_batch(p, q)
    log_a, parts = components(p)
    with torch.no_grad():
        weights = log_a.exp()
        largest = weights.reshape(-1, weights.shape[-1]).amax(0)
        counts = (num_samples * largest / largest.sum()).ceil().clamp(min=4).long() // 2 * 2
        found = [
            (weights[..., k], Terms.of(*_log_ratio(p, q, parts, k, n, shape)))
            for k, n in enumerate(counts.tolist())
        ]
    paired = "antithetic, " if isinstance(_inner(parts), _SYMMETRIC) else ""
    total = int(counts.sum())
    reason = f"{paired}{total:,} samples of p's components"
    return estimate_of(p, q, found, total, "monte carlo (stratified)", reason)


def _log_ratio(
    p: Distribution, q: Distribution, parts: Distribution, k: int, n: int, shape: torch.Size
) -> tuple[Tensor, Tensor | None]:
    """Log p - log q at samples of component k, one for each independent draw.

    Also which of them have rounded to an end of the component's support.
    """
    wide = parts.expand(torch.Size((*shape, parts.batch_shape[-1])))
    event = len(parts.event_shape)
    symmetric = isinstance(_inner(parts), _SYMMETRIC)
    x, at_end = draw(wide, n // 2 if symmetric else n)
    x, at_end = x.select(-1 - event, k), None if at_end is None else at_end[..., k]
    if symmetric:
        loc = wide.mean.select(-1 - event, k)
        x = torch.cat((x, 2 * loc - x))
    terms = _log_density(p, x) - _log_density(q, x)
    if symmetric:
        terms = terms.reshape(2, n // 2, *shape).mean(0)
    return torch.where(torch.isneginf(terms), math.nan, terms), at_end


def _inner(distribution: Distribution) -> Distribution:
    return distribution.base_dist if is_a(distribution, Independent) else distribution


def _log_density(distribution: Distribution, x: Tensor) -> Tensor:
    """Of a mixture by its components: Pyro's classes take no batch of values, or only some."""
    if not is_mixture(distribution):
        return log_density(distribution, x, log_prob_anywhere)
    log_weights, parts = components(distribution)
    at = x.unsqueeze(-1 - len(parts.event_shape))
    return (log_weights + log_prob_anywhere(parts, at)).logsumexp(-1)
