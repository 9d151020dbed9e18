"""ZeroInflatedDistribution: a distribution of counts with an additional atom at 0."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import Geometric, ImproperUniform, ZeroInflatedDistribution
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from ..messages import see
from ..numerics.dtypes import in_float64, promoted
from ..numerics.special.zero_inflation import Gates, kl_inflated, log_gates
from ..registry.family import read_gate
from ..registry.pair import Case
from ..registry.register import family_of, register
from ..registry.shapes import broadcast_batch, some_tensor
from .log_prob import log_prob_anywhere


def by_zero_inflation(p: Distribution, q: Distribution) -> Tensor | None:
    """The KL of the gates and of the bases; a distribution without a gate has gate 0."""
    inflated = [
        distribution
        for distribution in (p, q)
        if isinstance(distribution, ZeroInflatedDistribution)
    ]
    if not inflated or isinstance(q, ImproperUniform):
        return None
    for distribution in inflated:
        _check_counts(distribution)
    shape, dtype = broadcast_batch(p, q), promoted([*_tensors(p), *_tensors(q)])
    if not _is_discrete(p) or not _is_discrete(q):
        return some_tensor(p).new_full((), math.inf, dtype=dtype).expand(shape)
    (p_base, p_gates), (q_base, q_gates) = _opened(p), _opened(q)
    between = in_float64(kl_divergence(p_base, q_base))
    value = kl_inflated(between, _log_zero(p_base), _log_zero(q_base), p_gates, q_gates)
    return value.to(dtype).expand(shape)


def _check_counts(distribution: ZeroInflatedDistribution) -> None:
    if not _is_discrete(distribution.base_dist):
        raise ValueError(
            f"ZeroInflatedDistribution({type(distribution.base_dist).__name__}) mixes an atom at "
            "0 with a density, and its log_prob adds a mass to a density: no KL is defined by "
            "it. Use a base on the counts." + see("not-a-kl")
        )


def _is_discrete(distribution: Distribution) -> bool:
    return distribution.support is not None and bool(distribution.support.is_discrete)


def _tensors(distribution: Any) -> list[Tensor]:
    """The tensors whose promoted dtype is that of the KL."""
    if isinstance(distribution, ZeroInflatedDistribution):
        return [*read_gate(distribution).values(), *_tensors(distribution.base_dist)]
    family = family_of(type(distribution))
    return (
        [some_tensor(distribution)] if family is None else list(family.of(distribution).values())
    )


def _opened(distribution: Any) -> tuple[Distribution, Gates]:
    """The base, in float64 if it is a declared family, and the logs of gate and 1 - gate."""
    if isinstance(distribution, ZeroInflatedDistribution):
        gates = log_gates(**{name: in_float64(x) for name, x in read_gate(distribution).items()})
        return _opened(distribution.base_dist)[0], gates
    closed = log_gates(
        torch.zeros((), dtype=torch.float64, device=some_tensor(distribution).device)
    )
    family = family_of(type(distribution))
    if family is None:
        return distribution, closed
    make: Any = family.distribution
    values = {name: in_float64(x) for name, x in family.of(distribution).items()}
    return make(**values, validate_args=False), closed


def _log_zero(base: Distribution) -> Tensor:
    """Log of the base's mass at 0."""
    family = family_of(type(base))
    if family is None or family.log_mass is None:
        anchor = some_tensor(base)
        return in_float64(log_prob_anywhere(base, anchor.new_zeros(base.batch_shape)))
    zero = torch.zeros(1, dtype=torch.long, device=some_tensor(base).device)
    return family.log_mass(zero, **family.of(base)).squeeze(-1)


def _geometric(probs: Tensor, gate: Tensor) -> ZeroInflatedDistribution:
    return ZeroInflatedDistribution(Geometric(probs), gate=gate)


@register(
    ZeroInflatedDistribution,
    ZeroInflatedDistribution,
    cases=[
        Case({"probs": 0.25, "gate": 0.5}, {"probs": 0.5, "gate": 0.25}, 0.1962180539117054386938)
    ],
    finite="q has mass wherever p has",
    reference="chain rule: is it zero, and then how large; see zero_inflation.py",
    method="rule",
    make_p=_geometric,
    make_q=_geometric,
)
def kl_zero_inflated(p: ZeroInflatedDistribution, q: ZeroInflatedDistribution) -> Tensor:
    """KL from that of the bases."""
    value = by_zero_inflation(p, q)
    assert value is not None
    return value
