"""Entropies and cross-entropies: by formula, by a sum over atoms, or by an integral."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.distributions import MaskedMixture
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    Multinomial,
    MultivariateNormal,
)

from ..messages import see
from ..numerics.concrete import can_be_read
from ..registry.entropy import declared_entropy
from ..registry.reduction import canonicalise, describe
from ..registry.register import family_of
from ..registry.renyi import in_float64_of
from ..registry.shapes import nan_rows, peel, sum_events
from ..registry.subclasses import class_of, is_a
from ..registry.tensors import own_copy, promoted
from ..wrappers.masked import unmasked
from . import sums
from .at_points import entropy_at_points
from .discrete import discrete
from .estimate import Estimate
from .found import Found
from .integrals.entropy import entropy_by_integral
from .kl import kl
from .mixtures import check_operands, check_pair

#: Classes whose own `entropy` keeps its digits in float64.
_UPSTREAM = (LowRankMultivariateNormal, Multinomial, MultivariateNormal)
#: `Distribution.entropy` finds a sum of at most so many terms, which takes some 0.1 s.
_QUICK = 1 << 20


def entropy(p: Distribution) -> Estimate:
    """The entropy -E_p log p, without sampling.

    Args:
        p: a distribution. That of one with a density depends on the units of x, and may be
            negative. A Delta counts as in its KL, with the density exp(log_density) at its point.

    Returns:
        Nats, of p's batch shape, with the method, and the error of an integral.

    Raises:
        NotImplementedError: there is no formula, sum or integral.
        TypeError: `p` is not a distribution.

    Reference:
        Cover & Thomas (2006), Elements of information theory, ch. 2 and 8.

    Example:
        >>> print(pyro_kl.entropy(torch.distributions.Poisson(3.0)))
        1.93147 nats  [exact sum: pyro_kl.families.poisson]
    """
    check_operands(p, what="the entropy")
    found = _found(
        p, (_declared, _of_family, _of_atoms, _upstream, entropy_at_points, entropy_by_integral)
    )
    if found is None:
        raise NotImplementedError(
            f"No formula and no integral for the entropy of {describe(p)}. "
            "-p.log_prob(p.sample((100_000,))).mean(0) estimates it." + see("no-formula")
        )
    return found.as_estimate()


def exact_entropy(p: Distribution) -> Tensor | None:
    """The entropy by a formula or a short sum, for `Distribution.entropy`; None if there is none.

    Code that draws a sample where a class has no entropy must neither wait nor meet another error
    than before: a sum is not begun if it is long, or if values cannot be read.
    """
    found = _found(p, (_closed_form, _of_family, _of_few_atoms, _upstream))
    return found and found.value


def cross_entropy(p: Distribution, q: Distribution, *, tolerance: float = 1e-6) -> Estimate:
    """The cross-entropy -E_p log q = KL(p || q) + entropy(p), without sampling.

    Args:
        p: the distribution that the expectation is over.
        q: the distribution whose log density is averaged, on the same space.
        tolerance: the relative error that the KL aims at, if it is an integral.

    Returns:
        Nats, of shape broadcast(p.batch_shape, q.batch_shape), with the methods of both parts;
        +inf where the KL is.

    Raises:
        NotImplementedError: the KL or the entropy has no formula, sum or integral.
        TypeError: as `kl`.
        ValueError: as `kl`.

    Example:
        >>> p, q = torch.distributions.Normal(1.0, 1.0), torch.distributions.Normal(0.0, 1.0)
        >>> print(f"{pyro_kl.cross_entropy(p, q):.6f}")
        1.918939
    """
    check_pair(p, q, "cross-entropy")
    divergence, own = kl(p, q, tolerance=tolerance), entropy(p)
    value = divergence.value + own.value
    errors = [x.error for x in (divergence, own) if x.error is not None]
    return Estimate(
        value,
        torch.zeros_like(value.detach()),
        " and ".join(dict.fromkeys((divergence.method, own.method))),
        reason="; ".join(dict.fromkeys((divergence.reason, own.reason))),
        error=sum(errors[1:], errors[0]).expand(value.shape) if errors else None,
        nodes=max(divergence.nodes, own.nodes),
    )


def _found(
    p: Distribution, ways: Sequence[Callable[[Distribution], Found | None]]
) -> Found | None:
    """The entropy by the first way that there is."""
    shape = p.batch_shape
    bare, mask = unmasked(p)
    if bare is not p:
        counts, inner = torch.as_tensor(mask), _found(bare, ways)
        return inner and inner.changed(lambda x: torch.where(counts, x.expand(shape), 0.0))
    if isinstance(p, MaskedMixture):
        selector: Any = p  # whose `mask` is a tensor, and no method
        where_not, where = _found(p.component0, ways), _found(p.component1, ways)
        return where and where_not and where.where(selector.mask, where_not, shape)
    if is_a(p, Independent):
        ndims = p.reinterpreted_batch_ndims
        inner, events = _found(peel(p, ndims), ways), p.event_shape[:ndims]
        return inner and inner.changed(lambda x: sum_events(x, shape, events))
    plain = canonicalise(p)
    if plain is not p:
        inner = _found(plain, ways)
        return inner and inner.changed(lambda x: x.expand(shape))
    found = next(filter(None, (way(p) for way in ways)), None)
    return found and found.changed(lambda x: x.expand(shape).to(promoted((p,))))


def _declared(p: Distribution) -> Found | None:
    declared = declared_entropy(p)
    return None if declared is None else _known(p, Found(*declared))


def _known(p: Distribution, found: Found) -> Found:
    """With nan in the rows where a parameter is nan."""
    return found._replace(value=torch.where(nan_rows(p), math.nan, found.value))


def _closed_form(p: Distribution) -> Found | None:
    """Neither a sum of unknown length, nor an integral, nor the convention for a point."""
    declared = declared_entropy(p, method="closed form")
    return None if declared is None else _known(p, Found(*declared))


def _of_family(p: Distribution) -> Found | None:
    family = family_of(type(p))
    if family is None or family.entropy is None:
        return None
    return Found(family.entropy(**in_float64_of(family, p)), "closed form", family.home)


def _of_atoms(p: Distribution) -> Found | None:
    of_p = discrete(p)
    if of_p is None:
        return None
    value = torch.where(nan_rows(p), math.nan, sums.entropy_sum(of_p))
    return Found(value, "exact sum", of_p.family.home)


def _of_few_atoms(p: Distribution) -> Found | None:
    """By a sum, if it is short, and if the values that say how long can be read."""
    of_p = discrete(p)
    if of_p is None or not all(can_be_read(x) for x in of_p.tensors):
        return None
    if of_p.shape.numel() * of_p.width > _QUICK:
        return None
    try:
        value = sums.entropy_sum(of_p, most=_QUICK)
    except NotImplementedError:  # too many atoms count
        return None
    return Found(torch.where(nan_rows(p), math.nan, value), "exact sum", of_p.family.home)


def _upstream(p: Distribution) -> Found | None:
    if class_of(p) not in _UPSTREAM:
        return None
    source = f"{type(p).__name__}.entropy, in float64"
    return Found(own_copy(p).entropy(), "closed form", source)
