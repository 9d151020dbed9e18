"""ZeroInflatedDistribution: a law on the counts with an extra atom at 0, whatever the base."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import Geometric, ImproperUniform, ZeroInflatedDistribution
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from ..numerics.dtypes import in_float64, promoted
from ..numerics.special.zero_inflation import Gates, kl_inflated, log_gates, read_gate
from ..registry.pair import Case
from ..registry.reduction import reduction
from ..registry.register import family_of, register
from ..registry.shapes import broadcast_batch, some_tensor
from .log_prob import log_prob_anywhere


@reduction
def by_zero_inflation(p: Distribution, q: Distribution) -> Tensor | None:
    """Is it zero, and how large is it if not: by the KL of the bases; a plain law has gate 0."""
    inflated = [law for law in (p, q) if isinstance(law, ZeroInflatedDistribution)]
    if not inflated or isinstance(q, ImproperUniform):
        return None
    for law in inflated:
        _check_counts(law)
    shape, dtype = broadcast_batch(p, q), promoted([*_tensors(p), *_tensors(q)])
    if not _is_discrete(p) or not _is_discrete(q):
        return some_tensor(p).new_full((), math.inf, dtype=dtype).expand(shape)
    (p_base, p_gates), (q_base, q_gates) = _opened(p), _opened(q)
    between = in_float64(kl_divergence(p_base, q_base))
    value = kl_inflated(between, _log_zero(p_base), _log_zero(q_base), p_gates, q_gates)
    return value.to(dtype).expand(shape)


def _check_counts(law: ZeroInflatedDistribution) -> None:
    if not _is_discrete(law.base_dist):
        raise ValueError(
            f"ZeroInflatedDistribution({type(law.base_dist).__name__}) mixes an atom at 0 with a "
            "density, and its log_prob adds a mass to a density: no KL is defined by it. Use a "
            "base on the counts."
        )


def _is_discrete(law: Distribution) -> bool:
    return law.support is not None and bool(law.support.is_discrete)


def _tensors(law: Any) -> list[Tensor]:
    """The tensors whose dtype the answer has."""
    if isinstance(law, ZeroInflatedDistribution):
        return [*read_gate(law).values(), *_tensors(law.base_dist)]
    family = family_of(type(law))
    return [some_tensor(law)] if family is None else list(family.of(law).values())


def _opened(law: Any) -> tuple[Distribution, Gates]:
    """The base and the logs of gate and 1 - gate, in float64 as far as families know how."""
    if isinstance(law, ZeroInflatedDistribution):
        gates = log_gates(**{name: in_float64(x) for name, x in read_gate(law).items()})
        return _opened(law.base_dist)[0], gates
    closed = log_gates(torch.zeros((), dtype=torch.float64, device=some_tensor(law).device))
    family = family_of(type(law))
    if family is None:
        return law, closed
    make: Any = family.distribution
    values = {name: in_float64(x) for name, x in family.of(law).items()}
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
