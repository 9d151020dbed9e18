"""Jensen and Shannon's divergence, and Jeffreys': the symmetric relatives of the KL."""

from __future__ import annotations

import math

import torch
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)

from ..registry.reduction import NoDivergence, canonicalise
from ..registry.shapes import (
    broadcast_batch,
    peel,
    some_tensor,
    sum_events,
)
from ..registry.subclasses import is_a
from ..registry.tensors import promoted
from ..wrappers.masked import selections
from ..wrappers.transformed.rules import without_shared_maps
from . import sums
from .at_points import jensen_shannon_at_points
from .discrete import discrete
from .estimate import Estimate
from .found import Found, of_one_or_masked
from .integrals.jensen_shannon import jensen_shannon_by_integral
from .integrals.rows import missing_rows
from .kl import kl
from .mixtures import check_pair
from .monte_carlo import check_sampling
from .normalised import check_normalised, is_singular
from .sampled import sampled_jensen_shannon


def jensen_shannon(
    p: Distribution,
    q: Distribution,
    num_samples: int | None = None,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Jensen and Shannon's divergence, [KL(p || m) + KL(q || m)] / 2 with m = (p + q) / 2.

    It is symmetric, finite for all p and q, and at most log 2, which it reaches where they share
    no mass. Its square root is a distance.

    Args:
        p: a distribution.
        q: another one on the same space.
        num_samples: the number of samples of each where there is no sum and no integral; None (the
            default) raises there instead. The terms are bounded, so that the standard error holds.
        generator: source of randomness for these samples.

    Returns:
        Nats, of shape broadcast(p.batch_shape, q.batch_shape), with the method, and the error of
        an integral.

    Raises:
        NotImplementedError: there is no sum and no integral, and `num_samples` is None. The
            divergence is no sum over independent coordinates, and has no closed form for
            multivariate normals.
        TypeError: one of them is not a distribution.
        ValueError: event shapes differ, or batch shapes do not broadcast.

    Reference:
        Lin (1991), Divergence measures based on the Shannon entropy, eq. 4.1.

    Example:
        >>> p, q = torch.distributions.Normal(1.0, 1.0), torch.distributions.Laplace(0.0, 1.0)
        >>> print(f"{pyro_kl.jensen_shannon(p, q):.6f}")
        0.111016
    """
    check_pair(p, q, "Jensen-Shannon")
    check_sampling(num_samples, generator)
    try:
        return _found(p, q).as_estimate()
    except NoDivergence:
        raise
    except NotImplementedError:
        if num_samples is None:
            raise
    return sampled_jensen_shannon(p, q, num_samples, generator)


def _found(p: Distribution, q: Distribution) -> Found:
    shape = broadcast_batch(p, q)
    plain_case = of_one_or_masked(p, q, "Jensen-Shannon", _found)
    if plain_case is not None:
        return plain_case
    selected = selections(p, q)
    if selected is not None:
        mask, *choices = selected
        where_not, where = (_found(*pair) for pair in choices)
        return where.where(mask, where_not, shape)
    if is_singular(p, q):
        nothing = some_tensor(p).detach().new_zeros(()).expand(shape)
        return Found(nothing + math.log(2), "closed form", "one has atoms, the other a density")
    check_normalised("Jensen-Shannon", p, q)
    for inner in ((canonicalise(p), canonicalise(q)), without_shared_maps(p, q)):
        if inner is not None and (inner[0] is not p or inner[1] is not q):
            return _found(*inner).changed(lambda x: x.expand(shape))
    one_p, one_q = _of_one_number(p), _of_one_number(q)
    if one_p is not None and one_q is not None:
        ndims = min(one_p.reinterpreted_batch_ndims, one_q.reinterpreted_batch_ndims)
        numbers = _found(peel(one_p, ndims), peel(one_q, ndims))
        return numbers.changed(lambda x: sum_events(x, shape, p.event_shape[:ndims]))
    of_p, of_q = discrete(p), discrete(q)
    if of_p is not None and of_q is not None:
        found = Found(sums.jensen_shannon_sum(of_p, of_q), "exact sum", of_p.family.home)
    else:
        found = jensen_shannon_at_points(p, q) or jensen_shannon_by_integral(p, q)
    unknown = missing_rows(p) | missing_rows(q)
    return found.changed(
        lambda x: torch.where(unknown, math.nan, x).expand(shape).to(promoted((p, q)))
    )


def _of_one_number(distribution: Distribution) -> Independent | None:
    """A distribution whose event has one number, as an Independent; None for another one."""
    if math.prod(distribution.event_shape) != 1:
        return None
    if is_a(distribution, MultivariateNormal):
        scale = distribution.scale_tril[..., 0]
    elif is_a(distribution, LowRankMultivariateNormal):
        scale = distribution.variance.sqrt()
    else:
        return distribution if is_a(distribution, Independent) else None
    normal = Normal(distribution.loc, scale, validate_args=False)
    return Independent(normal, 1, validate_args=False)


def jeffreys(p: Distribution, q: Distribution, *, tolerance: float = 1e-6) -> Estimate:
    """Jeffreys' divergence, KL(p || q) + KL(q || p).

    Args:
        p: a distribution.
        q: another one on the same space.
        tolerance: the relative error that an integral aims at.

    Returns:
        Nats, of shape broadcast(p.batch_shape, q.batch_shape), with the method, and the sum of the
        errors of the integrals.

    Raises:
        NotImplementedError: one of the two KLs has no formula and no integral.
        TypeError: as `kl`.
        ValueError: as `kl`.

    Reference:
        Jeffreys (1946), An invariant form for the prior probability in estimation problems.

    Example:
        >>> p, q = torch.distributions.Normal(1.0, 1.0), torch.distributions.Normal(0.0, 1.0)
        >>> float(pyro_kl.jeffreys(p, q))
        1.0
    """
    check_pair(p, q, "Jeffreys")
    forward, backward = kl(p, q, tolerance=tolerance), kl(q, p, tolerance=tolerance)
    errors = [x.error for x in (forward, backward) if x.error is not None]
    methods = dict.fromkeys((forward.method, backward.method))
    reasons = dict.fromkeys((forward.reason, backward.reason))
    value = forward.value + backward.value
    return Estimate(
        value,
        torch.zeros_like(value.detach()),
        " and ".join(methods),
        reason="; ".join(reasons),
        error=sum(errors[1:], errors[0]) if errors else None,
        nodes=max(forward.nodes, backward.nodes),
    )
