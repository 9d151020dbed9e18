"""Closed forms by composition, and exact sums over a finite support.

    KL(p || q) = cross-entropy(p, q) - entropy(p)

The cross-entropy to q is linear in a few expectations under p. A pair has a closed form where
p declares all of those that q's cross-entropy needs. Other rules here: the KL is infinite because
p has mass where q has none; p and q are special cases of one family; p has finitely many atoms.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..numerics.autograd.fused import FusedFormula, Kernel
from ..numerics.dtypes import Parameters
from ..numerics.special.divergences import kl_div_of_logs
from .family import Condition, Family, Moment, end_at
from .finiteness import always_infinite
from .lift import derived_pair
from .pair import Pair
from .register import derivation_rule, kernel_of, upstream_owner

_WRONG_SHAPE = "torch returns inf in p's batch shape instead of the broadcast one"


@derivation_rule
def mass_outside(p: Family, q: Family) -> Pair | None:
    """The KL is infinite for all parameters: p has mass where q has none."""
    if not p.support.never_inside(q.support):
        return None
    return derived_pair(
        p,
        q,
        always_infinite,
        method="infinite",
        finite="never",
        reference=f"p lives on the {p.support.name}, q on the {q.support.name}",
        replaces=_WRONG_SHAPE if upstream_owner(p.distribution, q.distribution) else None,
    )


@derivation_rule
def nested(p: Family, q: Family) -> Pair | None:
    """Both families are special cases of one family, whose own KL has a formula."""
    (p_wider, p_map), (q_wider, q_map) = _wider(p), _wider(q)
    is_widest = p.special_case_of is None and q.special_case_of is None
    kernel = kernel_of(p_wider, q_wider)
    if is_widest or p_wider is not q_wider or kernel is None:
        return None

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
    """The family that contains this one (or itself), and the map of the parameters."""
    return family.special_case_of or (family.distribution, dict)


@derivation_rule
def composition(p: Family, q: Family) -> Pair | None:
    """Closed form: p declares every expectation that the cross-entropy to q needs."""
    if q.needs is None:
        return None
    reference = p.reference if p.reference == q.reference else f"{p.reference}; {q.reference}"
    if any(p.moments[name].never for name in q.needs if name in p.moments):
        return derived_pair(
            p, q, always_infinite, method="infinite", finite="never", reference=reference
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
        masked=not q.needs,  # the comparison of two supports does not pass on a nan
    )


def _terms(p: Family, q: Family) -> dict[str, Callable[..., Tensor]]:
    """The declared functions that a composed formula consists of."""
    assert q.cross_entropy is not None
    assert p.entropy is not None
    moments = {f"E_p: {name}": p.moments[name].value for name in q.needs or ()}
    return {"-E_p log q": q.cross_entropy, **moments, "H(p)": p.entropy}


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
        # Where the KL is infinite, the formula is evaluated at other parameters and masked at the
        # end: an inf inside the formula would make the gradient nan.
        for mask in tuple(infinite):
            a, b = p.unless(mask, a), q.unless(mask, b)
        expectations = [_expectation(moment, a, infinite) for moment in moments]
        value = cross_entropy(*expectations, **b) - entropy(**a)
        for mask in infinite:
            value = torch.where(mask, math.inf, value)
        return value

    needs = ", ".join(q.needs or ()) or "nothing but the support"
    kl_composed.__doc__ = (
        f"KL = -E_p log q - H(p). The cross-entropy to {q.name} needs of {p.name}: {needs}."
    )
    return kl_composed


def _as_tensor(mask: Tensor | bool, like: Parameters) -> Tensor:
    if not isinstance(mask, bool):
        return mask
    return torch.as_tensor(mask, device=next(iter(like.values())).device)


def _expectation(
    moment: Moment, a: Parameters, infinite: list[Tensor]
) -> Tensor | Callable[[Tensor], Tensor]:
    """The moment at safe parameters, or as a function of its argument; `infinite` gets masks."""
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


# --- exact sums ---------------------------------------------------------------------------------


def log_masses_of(family: Family) -> Callable[[int, Parameters], Tensor]:
    """A function of n and the parameters: the log masses at 0..n-1 along a new last dimension.

    Where `family.log_mass` is elementwise, they are one node of autograd's graph.
    """
    log_mass, elementwise = family.log_mass, not family.vectors
    assert log_mass is not None

    def on_columns(atoms: Parameters, columns: Parameters) -> Tensor:
        k = atoms["k"]
        if isinstance(k, Tensor):  # a declared function may index with k
            k = k.long()
        return log_mass(k, **{name: x.squeeze(-1) for name, x in columns.items()})

    node = FusedFormula(on_columns)

    def masses(n: int, parameters: Parameters) -> Tensor:
        like = next(iter(parameters.values()))
        if elementwise:
            k = torch.arange(n, dtype=like.dtype, device=like.device)
            return node({"k": k}, {name: x.unsqueeze(-1) for name, x in parameters.items()})
        return log_mass(torch.arange(n, device=like.device), **parameters)

    return masses


_kl_terms = FusedFormula(lambda p, q: kl_div_of_logs(p["log_mass"], q["log_mass"]))


def kl_terms(log_p: Tensor, log_q: Tensor) -> Tensor:
    """`kl_div_of_logs` of log masses, as one node of autograd's graph."""
    return _kl_terms({"log_mass": log_p}, {"log_mass": log_q})


@derivation_rule
def finite_sum(p: Family, q: Family) -> Pair | None:
    """P has finitely many atoms, and q has a mass function.

    KL = sum_k [p_k log(p_k / q_k) - p_k + q_k] + (1 - sum_k q_k): no term is negative, so nothing
    cancels to first order where p is close to q. The last term is q's mass outside p's support.
    """
    num_atoms = p.num_atoms
    if num_atoms is None or p.log_mass is None or q.log_mass is None:
        return None
    p_masses, q_masses = log_masses_of(p), log_masses_of(q)
    q_covers, q_tail = q.num_atoms, q.tail

    def kl_finite_sum(a: Parameters, b: Parameters) -> Tensor:
        n = num_atoms(**a)
        if q_covers is not None:
            # q's atoms beyond those of p are part of the sum: each adds its mass
            n = max(n, q_covers(**b))
        log_p, log_q = p_masses(n, a), q_masses(n, b)
        total = kl_terms(log_p, log_q).sum(-1)
        if q_tail is None and q_covers is None:
            return total - torch.expm1(torch.logsumexp(log_q, -1))
        beyond = q_tail(n, **b) if q_tail is not None else torch.zeros_like(total)
        return total + beyond + _lost_slope(log_p, log_q, beyond)

    kl_finite_sum.__doc__ = "KL = sum_k p_k log(p_k / q_k), in non-negative terms."
    return derived_pair(
        p,
        q,
        kl_finite_sum,
        method="exact sum",
        finite="q has mass wherever p has",
        reference="the definition, summed",
    )


def _lost_slope(log_p: Tensor, log_q: Tensor, beyond: Tensor) -> Tensor:
    """0, with the gradient of those masses of q that are 0 where p's are 0 too.

    The logarithm of such a mass has no gradient. All masses and the tail sum to 1, so the gradient
    is minus that of the others: d/drate KL(Bernoulli(0) || Poisson(rate)) is 1 at rate 0 too.
    """
    lost = (torch.isneginf(log_p) & torch.isneginf(log_q)).any(-1)
    others = torch.exp(log_q).sum(-1) + beyond
    return torch.where(lost, others.detach() - others, 0.0)


@derivation_rule
def unbounded_in_finite(p: Family, q: Family) -> Pair | None:
    """P is on all counts and q on finitely many: infinite, unless p is an atom at 0.

    Poisson(0), Geometric(1) and NegativeBinomial(r, 0) are atoms at 0.
    """
    p_mass, q_mass = p.log_mass, q.log_mass
    if p.num_atoms is not None or q.num_atoms is None or p_mass is None or q_mass is None:
        return None

    def kl_unbounded_in_finite(a: Parameters, b: Parameters) -> Tensor:
        zero = torch.zeros(1, dtype=torch.long, device=next(iter(a.values())).device)
        all_at_zero = p_mass(zero, **a).squeeze(-1) == 0
        return torch.where(all_at_zero, -q_mass(zero, **b).squeeze(-1), math.inf)

    kl_unbounded_in_finite.__doc__ = "-log q(0) where p is an atom at 0, +inf elsewhere."
    return derived_pair(
        p,
        q,
        kl_unbounded_in_finite,
        method="infinite",
        finite="p is an atom at 0",
        reference=f"p lives on the {p.support.name}, q on finitely many",
    )
