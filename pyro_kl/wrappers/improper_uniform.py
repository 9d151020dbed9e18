"""ImproperUniform as q: log q = 0 on its support, which is not a normalised density.

The KL is then -H(p), of either sign: the contribution of a site with an improper prior to an ELBO.
It is +inf where p has mass outside of the support.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import Delta, ImproperUniform
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, constraints

from ..messages import see
from ..numerics.dtypes import Parameters, in_float64, promoted
from ..registry.family import Family, end_at, in_rows
from ..registry.pair import Case
from ..registry.reduction import describe
from ..registry.register import family_of, register
from ..registry.shapes import any_of_last, broadcast_batch, nan_in, nan_rows, sum_events
from .delta import kl_delta
from .transformed.supports import bounds


def _on_the_line(**_: Tensor) -> ImproperUniform:
    return ImproperUniform(constraints.real, (), ())


@register(
    Distribution,
    ImproperUniform,
    cases=[
        Case({"loc": 0.0, "scale": 1.0}, {}, -1.41893853320467274178),
        Case({"loc": 3.0, "scale": 0.125}, {}, 0.66050300847516318647),
    ],
    finite="p's support is inside q's",
    reference="the definition: log q = 0, so that -H(p) is left; it may be negative",
    method="closed form",
    make_p=Normal,
    make_q=_on_the_line,
)
def kl_improper_uniform(p: Distribution, q: ImproperUniform) -> Tensor:
    """-H(p), not a divergence: q is not normalised."""
    shape = broadcast_batch(p, q)
    base, ndims = p, 0
    if isinstance(p, Independent):
        base, ndims = p.base_dist, p.reinterpreted_batch_ndims
    family = family_of(type(base))
    if family is None or not (family.entropy or (family.log_mass and family.num_atoms)):
        own = _own_entropy(p, q)
        if own is not None:
            return torch.where(nan_rows(p), math.nan, -own).expand(shape)
        raise NotImplementedError(
            f"KL({describe(p)} || ImproperUniform) is -H(p), and nothing is known of the entropy "
            f"of {describe(base)}. Estimate it with pyro_kl.monte_carlo(p, q), or declare the "
            "family's entropy." + see("no-formula")
        )
    given = family.of(base)
    values = {name: in_float64(x) for name, x in given.items()}
    inside = _inside(family, values, q, p)
    entropy = sum_events(
        _entropy(family, values).expand(base.batch_shape), p.batch_shape, p.event_shape[:ndims]
    )
    if ndims:
        outside = sum_events((~inside).to(entropy.dtype), p.batch_shape, p.event_shape[:ndims])
        inside = outside == 0
    missing = nan_in(in_rows(values, family.vectors)).expand(base.batch_shape)
    value = torch.where(
        any_of_last(missing, ndims), math.nan, torch.where(inside, -entropy, math.inf)
    )
    return value.to(promoted(tuple(given.values()))).expand(shape)


def _own_entropy(p: Distribution, q: ImproperUniform) -> Tensor | None:
    """H(p) by p's own method, for vectors and matrices whose support is inside of q's."""
    if not p.event_shape or not _holds(q.support, p.support):
        return None
    try:
        return p.entropy()
    except NotImplementedError:
        return None


def _holds(wider: Any, support: Any) -> bool:
    """Whether every point of a support is known to be in the wider one."""
    wider, support = (_of_one_coordinate(x) for x in (wider, support))
    if wider is None or support is None or wider.is_discrete != support.is_discrete:
        return False
    return wider is constraints.real or wider is support


def _of_one_coordinate(support: Any) -> Any:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def _entropy(family: Family, values: Parameters) -> Tensor:
    """H(p) as the family declares it, or summed over its finitely many atoms."""
    if family.entropy is not None:
        return family.entropy(**values)
    _, log_p = _atoms(family, values)
    return -(torch.exp(log_p) * torch.where(torch.isneginf(log_p), 0.0, log_p)).sum(-1)


def _atoms(family: Family, values: Parameters) -> tuple[Tensor, Tensor]:
    """The atoms and the logs of their masses, along a new last dimension."""
    assert family.num_atoms is not None
    assert family.log_mass is not None
    k = torch.arange(family.num_atoms(**values), device=next(iter(values.values())).device)
    return k, family.log_mass(k, **values)


def _inside(family: Family, values: Parameters, q: ImproperUniform, p: Distribution) -> Tensor:
    """Where the support of p's coordinates is inside of q's support of one coordinate."""
    support: Any = q.support
    anchor = next(iter(values.values()))
    if bool(support.is_discrete) != family.support.discrete:
        return torch.zeros((), dtype=torch.bool, device=anchor.device)
    ends = bounds(support)
    if ends is None:
        raise NotImplementedError(
            f"KL({describe(p)} || ImproperUniform): whether {describe(p)} stays inside "
            f"{support} is not known." + see("no-formula")
        )
    floor, ceiling = (torch.as_tensor(end, device=anchor.device) for end in ends)
    if family.support.discrete:
        k, log_p = _atoms(family, values)
        within = (floor.unsqueeze(-1) <= k) & (k <= ceiling.unsqueeze(-1))
        return (within | torch.isneginf(log_p)).all(-1)
    low, high = end_at(family.support.low, values), end_at(family.support.high, values)
    return (floor <= low) & (ceiling >= high)


register(
    Delta,
    ImproperUniform,
    cases=[Case({"v": 1.0, "log_density": 2.0}, {}, 2.0)],
    finite="q has mass at v",
    reference="Pyro's convention: a Delta has density exp(log_density) at v; log q = 0",
    method="point density",
    make_q=_on_the_line,
)(kl_delta)
