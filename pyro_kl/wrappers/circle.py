"""Distributions on a circle: the KL to them is refused if p may cover more than one turn.

torch evaluates the density of angles at any real number, modulo a turn. It integrates to 1 over
one turn. If p's support is longer, E_p[log p - log q] is no KL, and may be negative. If it fits in
one turn, p is a distribution on the circle itself.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import Delta, FoldedDistribution, SineBivariateVonMises, SineSkewed
from torch import Tensor
from torch.distributions import Distribution, Independent, MixtureSameFamily, constraints

from ..messages import see
from ..numerics.concrete import holds_everywhere
from ..registry.reduction import NoDivergence, canonicalise, describe
from ..registry.register import family_of
from .transformed.maps import image, mapped_support
from .transformed.rules import base_and_transforms
from .transformed.supports import bounds

_OF_ANGLES = (SineBivariateVonMises, SineSkewed)


def period_of(distribution: Any) -> float | None:
    """The length of a turn if a distribution is of angles, or a product or mixture of such."""
    distribution = canonicalise(distribution)
    if isinstance(distribution, Independent):
        return period_of(distribution.base_dist)
    if isinstance(distribution, MixtureSameFamily):
        return period_of(distribution.component_distribution)
    if isinstance(distribution, _OF_ANGLES):
        return 2 * math.pi
    family = family_of(type(distribution))
    return None if family is None else family.support.period


def check_one_turn(p: Distribution, q: Distribution) -> None:
    """Refuse a p whose support may be longer than a turn of q's circle.

    Raises:
        NoDivergence: q is on a circle, and p's support is longer than one turn, or it is not
            known whether it is (the ends are parameters, and those are being traced).
    """
    period = period_of(q)
    if period is None or not _may_go_round(p, period):
        return
    raise NoDivergence(
        f"There is no KL({describe(p)} || {describe(q)}): q is a distribution on the circle, its "
        "density integrates to 1 over one turn, and p's support is not known to fit in one turn. "
        "Compare p with a distribution on the line, or give p a support of at most 2 pi. "
        "E_p[log p - log q], which Pyro's ELBOs then sample, is the mean of "
        "p.log_prob(x) - q.log_prob(x) at draws x of p, and may be negative." + see("not-a-kl")
    )


def support_of(distribution: Any) -> Any:
    """Where a distribution has mass: angles, which torch supports anywhere, from -pi to pi."""
    turn = period_of(distribution)
    if turn is not None:
        return constraints.interval(-0.5 * turn, 0.5 * turn)
    if isinstance(distribution, FoldedDistribution):
        turn = period_of(distribution.base_dist)
        if turn is not None:
            return constraints.interval(0.0, 0.5 * turn)
    support = mapped_support(distribution)
    return getattr(support, "base_constraint", support)  # a mixture's


def ends_of(distribution: Any) -> tuple[Any, Any] | None:
    """The ends of the interval where a continuous distribution has mass; None for others."""
    distribution = canonicalise(distribution)
    base, maps = base_and_transforms(distribution)
    if isinstance(distribution, FoldedDistribution):
        base, maps = distribution, []
    if isinstance(base, Delta):
        return None
    try:
        support = support_of(base)
    except (NotImplementedError, AttributeError):
        return None
    for transform in maps:
        support = image(support, transform)
    return None if support is None or support.is_discrete else bounds(support)


def _may_go_round(p: Any, period: float) -> bool:
    ends = ends_of(p)
    if ends is None:
        return False
    width = ends[1] - ends[0]
    eps = torch.finfo(width.dtype).eps if isinstance(width, Tensor) else 0.0
    # float32's pi is larger than pi
    return not holds_everywhere(width, lambda w: w <= period * (1 + 4 * eps))


def in_one_turn(p: Distribution, q: Distribution) -> Tensor | None:
    """No rule may give a KL where p's support is longer than a turn of q's circle."""
    check_one_turn(p, q)
    return None
