"""Mass at points: Delta, Unit, and atoms against a density."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from pyro.distributions import (
    Delta,
    Empirical,
    ImproperUniform,
    MaskedDistribution,
    MaskedMixture,
    Rejector,
    Unit,
    ZeroInflatedDistribution,
)
from pyro.distributions import Distribution as PyroDistribution
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily, Normal

from ..registry.entropy import entropy_formula
from ..registry.pair import Case
from ..registry.provenance import Use, home_of, note
from ..registry.reduction import canonicalise
from ..registry.register import register
from ..registry.shapes import broadcast_batch, some_tensor
from ..registry.subclasses import is_a
from .log_prob import log_prob_anywhere
from .masked import by_mask, unmasked

_of_point = partial(
    register,
    cases=[Case({"v": 1.0, "log_density": 2.0}, {"loc": 0.0, "scale": 1.0}, 3.4189385332046727)],
    finite="q has mass at v",
    reference="Pyro's convention: a Delta has density exp(log_density) at v",
    method="point density",
    replaces="Pyro drops log_density, where autoguides keep the Jacobian of a constrained site",
    make_q=Normal,
)


@_of_point(Delta, PyroDistribution)
@_of_point(Delta, Distribution)  # torch's classes are not Pyro's
def kl_delta(p: Delta, q: Distribution) -> Tensor:
    """log_density - log q(v), as if p had the density exp(log_density) at its only point.

    This is the contribution of an AutoDelta site to the ELBO; +inf where v is outside q's support.
    """
    shape = broadcast_batch(p, q)
    q = canonicalise(q)
    if unmasked(q)[1] is not True:
        value = by_mask(p, q)
        assert value is not None
        return value
    return (p.log_density - log_prob_anywhere(q, p.v)).expand(shape)


@register(
    Unit,
    Unit,
    cases=[Case({"log_factor": 2.0}, {"log_factor": -1.0}, 3.0)],
    reference="the definition: log p - log q at the only point",
    method="point density",
)
def kl_unit_unit(p: Unit, q: Unit) -> Tensor:
    """KL(Unit(a) || Unit(b)) = a - b: factors are not normalised."""
    return (p.log_factor - q.log_factor).expand(broadcast_batch(p, q))


@entropy_formula(Delta, method="point density")
def entropy_of_delta(p: Delta) -> Tensor:
    """-log_density: the entropy of the density that the KL takes p to have at its only point."""
    return torch.as_tensor(0.0 - p.log_density).expand(p.batch_shape)


@entropy_formula(Unit, method="point density")
def entropy_of_unit(p: Unit) -> Tensor:
    """-log_factor, as if it were normalised."""
    return -p.log_factor


# --- atoms against densities --------------------------------------------------------------------


#: Of these the support does not say whether they have atoms; they have rules of their own.
_UNKNOWN = (
    ImproperUniform, MaskedDistribution, MaskedMixture, Rejector, Unit, ZeroInflatedDistribution,
)  # fmt: skip


def by_atoms(p: Distribution, q: Distribution) -> Tensor | None:
    """+inf, if one distribution has mass at points only and the other has none at points."""
    of_p, of_q = is_atomic(p), is_atomic(q)
    if of_p is None or of_q is None or of_p == of_q:
        return None
    note(Use("infinite", home_of(__name__)))
    anchor = some_tensor(p)
    dtype = torch.promote_types(anchor.dtype, some_tensor(q).dtype)
    return anchor.detach().new_full((), math.inf, dtype=dtype).expand(broadcast_batch(p, q))


def is_atomic(distribution: Any) -> bool | None:
    """Whether all mass is at points (True) or none is (False); None if it is not known.

    For an image and for a product it is the same as for the base.
    """
    if isinstance(distribution, _UNKNOWN):
        return None
    if is_a(distribution, (Delta, Empirical)):
        return True
    base = getattr(distribution, "base_dist", None)
    if isinstance(distribution, MixtureSameFamily):
        base = distribution.component_distribution
    if base is not None:
        return is_atomic(base)
    try:
        support = distribution.support
    except (NotImplementedError, AttributeError):
        return None
    return None if support is None else bool(support.is_discrete)
