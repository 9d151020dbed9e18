"""Closed forms by composition: KL(p || q) = cross-entropy(p, q) - entropy(p).

The cross-entropy against q is linear in a few expectations under p; whoever knows those has the
KL against q. Here are the rules that find such pairs, those that are infinite because p has mass
where q has none, and those of two families nested in a third one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from .family import Family, Moment, Parameters
from .pair import Pair
from .registry import (
    Kernel,
    derivation_rule,
    derived_pair,
    has_kernel,
    kernel_of,
    upstream_owner,
)

_WRONG_SHAPE = "torch returns inf in p's batch shape instead of the broadcast one"


@derivation_rule
def mass_outside(p: Family, q: Family) -> Pair | None:
    """Infinite for all parameters: p has mass where q has none."""
    if p.support <= q.support:
        return None
    return derived_pair(
        p,
        q,
        _always_inf,
        method="infinite",
        finite="never",
        reference=f"p lives on the {p.support.name}, q on the {q.support.name}",
        replaces=_WRONG_SHAPE if upstream_owner(p.distribution, q.distribution) else None,
    )


def _always_inf(p: Parameters, q: Parameters) -> Tensor:
    """+inf for all parameters, as a constant: it has no gradient."""
    anchor = next(iter(p.values()))
    return torch.full((), math.inf, dtype=anchor.dtype, device=anchor.device)


@derivation_rule
def nested(p: Family, q: Family) -> Pair | None:
    """Both families are special cases of one that has a formula of its own."""
    (p_wider, p_map), (q_wider, q_map) = _wider(p), _wider(q)
    if p is q or p_wider is not q_wider or not has_kernel(p_wider, q_wider):
        return None
    kernel = kernel_of(p_wider, q_wider)

    def kl_nested(a: Parameters, b: Parameters) -> Tensor:
        return kernel(p_map(**a), q_map(**b))

    kl_nested.__doc__ = f"KL({p_wider.__name__} || {p_wider.__name__}): both are special cases."
    return derived_pair(
        p,
        q,
        kl_nested,
        method="closed form",
        finite="always",
        reference=f"both are {p_wider.__name__}",
    )


def _wider(family: Family) -> tuple[type[Distribution], Callable[..., Parameters]]:
    """The family that contains this one, itself if none, and the map of the parameters."""
    return family.special_case_of or (family.distribution, dict)


@derivation_rule
def composition(p: Family, q: Family) -> Pair | None:
    """Closed form: p knows every expectation that the cross-entropy against q asks for."""
    if p.entropy is None or q.cross_entropy is None or q.needs is None:
        return None
    if not set(q.needs) <= set(p.moments):
        return None
    moments = [p.moments[name] for name in q.needs]
    reference = p.reference if p.reference == q.reference else f"{p.reference}; {q.reference}"
    if any(moment.never for moment in moments):
        return derived_pair(
            p, q, _always_inf, method="infinite", finite="never", reference=reference
        )
    return derived_pair(
        p,
        q,
        _composed(p, q),
        method="closed form",
        finite=_when_finite(moments),
        reference=reference,
    )


def _when_finite(moments: Sequence[Moment]) -> str:
    """The moments' conditions in words, the strictest bound for each parameter."""
    bounds: dict[str, float] = {}
    for condition in (c for moment in moments for c in moment.finite):
        known = bounds.get(condition.parameter, condition.bound)
        bounds[condition.parameter] = max(known, condition.bound)
    return " and ".join(f"p.{name} > {bound:g}" for name, bound in bounds.items()) or "always"


def _composed(p: Family, q: Family) -> Kernel:
    moments = [p.moments[name] for name in q.needs or ()]
    entropy, cross_entropy = p.entropy, q.cross_entropy
    assert entropy is not None
    assert cross_entropy is not None

    def kl_composed(a: Parameters, b: Parameters) -> Tensor:
        expectations, finite = [], []
        for moment in moments:
            safe = a
            for condition in moment.finite:
                finite.append(condition.holds(a))
                # Where the moment is infinite it is evaluated elsewhere and masked at the end:
                # an inf inside would make the gradient of a neighbouring row nan.
                safe = condition.made_safe(safe)
            expectations.append(moment.value(**safe))
        value = cross_entropy(*expectations, **b) - entropy(**a)
        for mask in finite:
            value = torch.where(mask, value, math.inf)
        return value

    kl_composed.__doc__ = (
        f"KL = -E_p log q - H(p). {q.name} asks for {', '.join(q.needs or ())}; "
        f"{p.name} knows the answer{'s' if len(moments) > 1 else ''}."
    )
    return kl_composed
