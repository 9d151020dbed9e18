"""Exact sums over a finite support, in a form that keeps its digits where p is close to q."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..numerics.dtypes import Parameters
from ..numerics.special.divergences import kl_div_of_logs
from .family import Family
from .lift import derived_pair
from .pair import Pair
from .register import derivation_rule


@derivation_rule
def finite_sum(p: Family, q: Family) -> Pair | None:
    """P has finitely many atoms, and q says what mass it has there.

    KL = sum_k [p_k log(p_k / q_k) - p_k + q_k] + (1 - sum_k q_k): no term is negative, nothing
    cancels to first order, and q's mass outside p's support is added back.
    """
    num_atoms, p_mass, q_mass = p.num_atoms, p.log_mass, q.log_mass
    if num_atoms is None or p_mass is None or q_mass is None:
        return None
    q_covers, q_tail = q.num_atoms, q.tail

    def kl_finite_sum(a: Parameters, b: Parameters) -> Tensor:
        n = num_atoms(**a)
        if q_covers is not None:
            # q's atoms beyond p's belong to the sum: each adds its mass
            n = max(n, q_covers(**b))
        k = torch.arange(n, device=next(iter(a.values())).device)
        log_p, log_q = p_mass(k, **a), q_mass(k, **b)
        total = kl_div_of_logs(log_p, log_q).sum(-1)
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
    """0, with the slope of q's masses that are 0 where p's are 0 as well.

    Their logarithms have none, but all masses and the tail sum to 1: it is that of the others,
    taken away. So d/drate KL(Bernoulli(0) || Poisson(rate)) is 1 also at rate 0.
    """
    lost = (torch.isneginf(log_p) & torch.isneginf(log_q)).any(-1)
    others = torch.exp(log_q).sum(-1) + beyond
    return torch.where(lost, others.detach() - others, 0.0)


@derivation_rule
def unbounded_in_finite(p: Family, q: Family) -> Pair | None:
    """P is on all counts, q on finitely many: infinite, unless p degenerates to an atom at 0.

    Poisson(0), Geometric(1) and NegativeBinomial(r, 0) do; a distribution that cannot, never gets
    there.
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
