"""Closed forms by composition: KL(p || q) = cross-entropy(p, q) - entropy(p).

The cross-entropy against q is linear in a few expectations under p; whoever knows those has the
KL against q. Here are the rules that find such pairs, those that are infinite because p has mass
where q has none, and those of two families nested in a third one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..numerics.dtypes import Parameters
from .family import Condition, Family, Moment, end_at
from .lift import Kernel, derived_pair
from .pair import Pair
from .register import derivation_rule, has_kernel, kernel_of, upstream_owner

_WRONG_SHAPE = "torch returns inf in p's batch shape instead of the broadcast one"


@derivation_rule
def mass_outside(p: Family, q: Family) -> Pair | None:
    """Infinite for all parameters: p has mass where q has none."""
    if not p.support.never_inside(q.support):
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
    is_widest = p.special_case_of is None and q.special_case_of is None
    if is_widest or p_wider is not q_wider or not has_kernel(p_wider, q_wider):
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
    if q.needs is None:
        return None
    reference = p.reference if p.reference == q.reference else f"{p.reference}; {q.reference}"
    if any(p.moments[name].never for name in q.needs if name in p.moments):
        return derived_pair(
            p, q, _always_inf, method="infinite", finite="never", reference=reference
        )
    if p.entropy is None or not set(q.needs) <= set(p.moments):
        return None
    return derived_pair(
        p,
        q,
        _composed(p, q),
        method="closed form",
        finite=_when_finite(p, q),
        reference=reference,
        terms=_terms(p, q),
        masked=not q.needs,  # what it does not ask of p, is compared
    )


def _terms(p: Family, q: Family) -> dict[str, Callable[..., Tensor]]:
    """The declared functions that a composed formula consists of."""
    assert q.cross_entropy is not None
    assert p.entropy is not None
    asked = {f"E_p: {name}": p.moments[name].value for name in q.needs or ()}
    return {"-E_p log q": q.cross_entropy, **asked, "H(p)": p.entropy}


def _when_finite(p: Family, q: Family) -> str:
    """The conditions in words, the strictest bound for each parameter."""
    moments = [p.moments[name] for name in q.needs or ()]
    strictest: dict[tuple[str, bool], Condition] = {}
    for condition in (c for moment in moments for c in moment.finite):
        key = condition.parameter, condition.is_upper
        strictest[key] = condition.stricter(strictest.get(key, condition))
    words = [f"p.{condition}" for condition in strictest.values()]
    words += [
        f"{q.arguments[name]} < {moment.below}"
        for name, moment in zip(q.needs or (), moments, strict=True)
        if moment.argument_below is not None
    ]
    if any(p.support.inside(q.support)):
        words.append("p's support is inside q's")
    return " and ".join(words) or "always"


def _composed(p: Family, q: Family) -> Kernel:
    moments = [p.moments[name] for name in q.needs or ()]
    entropy, cross_entropy = p.entropy, q.cross_entropy
    compare_low, compare_high = p.support.inside(q.support)
    assert entropy is not None
    assert cross_entropy is not None

    def kl_composed(a: Parameters, b: Parameters) -> Tensor:
        infinite: list[Tensor] = []
        if compare_low:
            infinite.append(_as_tensor(end_at(q.support.low, b) > end_at(p.support.low, a), a))
        if compare_high:
            infinite.append(_as_tensor(end_at(p.support.high, a) > end_at(q.support.high, b), a))
        # Where the KL is infinite it is evaluated elsewhere and masked at the end: an inf
        # inside would make the gradient of a neighbouring row nan.
        for mask in tuple(infinite):
            a, b = p.unless(mask, a), q.unless(mask, b)
        expectations = [_expectation(moment, a, infinite) for moment in moments]
        value = cross_entropy(*expectations, **b) - entropy(**a)
        for mask in infinite:
            value = torch.where(mask, math.inf, value)
        return value

    asks = ", ".join(q.needs or ()) or "nothing but the support"
    kl_composed.__doc__ = (
        f"KL = -E_p log q - H(p). Of p, {q.name} asks for {asks}; {p.name} knows the answer."
    )
    return kl_composed


def _as_tensor(mask: Tensor | bool, like: Parameters) -> Tensor:
    if not isinstance(mask, bool):
        return mask
    return torch.as_tensor(mask, device=next(iter(like.values())).device)


def _expectation(
    moment: Moment, a: Parameters, infinite: list[Tensor]
) -> Tensor | Callable[[Tensor], Tensor]:
    """The moment at safe parameters, or the function of its argument; masks go to `infinite`."""
    for condition in moment.finite:
        infinite.append(condition.fails(a))
        a = condition.made_safe(a)
    if not moment.takes_argument:
        return moment.value(**a)

    def of_argument(argument: Tensor) -> Tensor:
        if moment.argument_below is not None:
            bound = moment.argument_below(**a)
            infinite.append(argument >= bound)
            argument = torch.where(argument >= bound, 0.5 * bound, argument)
        return moment.value(argument, **a)

    return of_argument
