"""GroupedNormalNormal: observations in groups with a common, unknown mean."""

from __future__ import annotations

import torch
from pyro.distributions import GroupedNormalNormal
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal, constraints, kl_divergence

from ...messages import see
from ...registry.entropy import entropy_formula
from ...registry.pair import Case
from ...registry.renyi import closed_renyi, renyi_formula
from ...registry.structured_family import StructuredFamily, register_each
from ...registry.tensors import own_copy

_SCALES = constraints.independent(constraints.positive, 1)
GROUPED = StructuredFamily(
    GroupedNormalNormal,
    {"prior_loc": constraints.real_vector, "prior_scale": _SCALES, "obs_scale": _SCALES},
    lambda group_idx, **parameters: GroupedNormalNormal(**parameters, group_idx=group_idx.long()),
    batched=False,
    samples="Pyro's class has no sampler",
)
_THREE_GROUPS = {
    "prior_loc": [0.5, -1.0, 0.25],
    "prior_scale": [1.0, 0.5, 2.0],
    "obs_scale": [0.3, 0.6, 0.9, 0.5, 0.4],
    "group_idx": [0, 1, 0, 2, 1],
}
_TWO_GROUPS = {
    "prior_loc": [0.0, 0.0, 1.0],
    "prior_scale": [1.5, 0.8, 1.0],
    "obs_scale": [0.5, 0.5, 0.7, 0.6, 0.8],
    "group_idx": [0, 1, 0, 1, 1],
}


@register_each(
    (GROUPED, GROUPED, [Case(_THREE_GROUPS, _TWO_GROUPS, 5.065450983979336092)]),
    reference="marginal of a hierarchical normal: covariance D + Z Z' (Murphy 2007, eq. 55)",
    method="rule",
)
def kl_grouped(p: GroupedNormalNormal, q: GroupedNormalNormal) -> Tensor:
    """KL of the two multivariate normals of all data, with a low-rank column for each group."""
    if p.group_idx.shape != q.group_idx.shape:
        raise ValueError(
            "KL(GroupedNormalNormal || GroupedNormalNormal): event shapes "
            f"{tuple(p.group_idx.shape)} and {tuple(q.group_idx.shape)} of the data differ."
            + see("event-shapes")
        )
    return kl_divergence(_joint(p), _joint(q))


def _joint(distribution: GroupedNormalNormal) -> LowRankMultivariateNormal:
    groups = torch.arange(distribution.num_groups, device=distribution.group_idx.device)
    member = distribution.group_idx.unsqueeze(-1) == groups
    factor = torch.where(member, distribution.prior_scale, 0.0)
    loc = distribution.prior_loc[distribution.group_idx]
    return LowRankMultivariateNormal(
        loc, factor, distribution.obs_scale.square(), validate_args=False
    )


@entropy_formula(GroupedNormalNormal)
def entropy_of_grouped(p: GroupedNormalNormal) -> Tensor:
    """That of the multivariate normal of all data."""
    return own_copy(_joint(p)).entropy()


@renyi_formula(GroupedNormalNormal, GroupedNormalNormal)
def renyi_of_grouped(
    p: GroupedNormalNormal, q: GroupedNormalNormal, alpha: float
) -> Tensor | None:
    """That of the two multivariate normals of all data."""
    found = closed_renyi(_joint(p), _joint(q), alpha)
    return found and found[0]
