"""`kl(p, q)`: one question, one number, and how it was made."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.distributions import Distribution, kl_divergence
from torch.distributions import kl as torch_kl

from .bounds import has_bounds
from .estimate import Estimate
from .mixtures import is_mixture
from .monte_carlo import monte_carlo, randomness
from .provenance import Use, least_exact, recording
from .registry import describe, pair_of
from .shapes import check_event_shapes
from .stratified import stratified

_told: set[str] = set()


def kl(
    p: Distribution,
    q: Distribution,
    num_samples: int | None = None,
    generator: torch.Generator | None = None,
) -> Estimate:
    """KL(p || q) = E_p[log p - log q], exactly if there is a formula.

    Args:
        p: the law that the expectation is over (the guide, the posterior).
        q: the law that it is compared with (the prior), on the same space.
        num_samples: how many samples may stand in where there is no formula; None (the default)
            allows none: nothing is estimated behind your back.
        generator: source of randomness for these samples.

    Returns:
        Nats, of shape broadcast(p.batch_shape, q.batch_shape), with the method that gave them and
        why. Exact values keep their graph; sampled ones carry a standard error and no gradient.

    Raises:
        NotImplementedError: there is no formula and `num_samples` is None.
        ValueError: event shapes differ or batch shapes do not broadcast.

    Example:
        >>> p, q = torch.distributions.Gamma(2.0, 1.0), torch.distributions.LogNormal(0.0, 1.0)
        >>> print(pyro_kl.kl(p, q))
        0.176348 nats  [closed form: pyro_kl.families.gamma, pyro_kl.families.lognormal]
    """
    check_event_shapes(p, q)
    try:
        with recording() as uses:
            value = kl_divergence(p, q)
    except NotImplementedError as missing:
        if num_samples is None:
            if has_bounds(p, q):
                raise NotImplementedError(
                    f"{missing} pyro_kl.bounds(p, q) has guaranteed bounds."
                ) from None
            raise
        return _sampled(p, q, num_samples, generator)
    value = torch.as_tensor(value)
    method, reason = method_of(p, q, uses)
    return Estimate(value, torch.zeros_like(value.detach()), method, reason=reason)


def method_of(p: Distribution, q: Distribution, uses: Sequence[Use]) -> tuple[str, str]:
    """The least exact of the formulas that were used, wrappers apart."""
    use = least_exact(uses)
    if use is not None:
        return use.method, use.source
    pair = pair_of(type(p), type(q))
    if pair is not None:  # a rule over a formula of torch's
        return "closed form", pair.source
    function = torch_kl._dispatch_kl(type(p), type(q))
    return "closed form", f"{function.__module__}.{function.__name__}, not replaced by pyro_kl"


def _sampled(
    p: Distribution, q: Distribution, num_samples: int, generator: torch.Generator | None
) -> Estimate:
    pair = f"KL({describe(p)} || {describe(q)})"
    reason = f"no formula for {pair}; {num_samples:,} samples of p"
    if pair not in _told:
        _told.add(pair)
        warnings.warn(f"{pair} is estimated by Monte Carlo: no formula for it.", stacklevel=3)
    if is_mixture(p):
        with randomness(generator):
            return stratified(p, q, num_samples)
    sampled = monte_carlo(p, q, num_samples, generator=generator)
    return replace(sampled, reason=reason)
