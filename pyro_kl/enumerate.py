"""Exact sums over a finite support, in a form that keeps its digits where p is close to q."""

from __future__ import annotations

import torch
from torch import Tensor

from .family import Family, Parameters
from .pair import Pair
from .registry import derivation_rule, derived_pair
from .special import generalised_kl_of_logs


@derivation_rule
def finite_sum(p: Family, q: Family) -> Pair | None:
    """Exact sum: p has finitely many atoms, and q says what mass it has there.

    KL = sum_k [p_k log(p_k / q_k) - p_k + q_k] + (1 - sum_k q_k): no term is negative, nothing
    cancels to first order, and q's mass outside p's support is added back.
    """
    num_atoms, p_mass, q_mass = p.num_atoms, p.log_mass, q.log_mass
    if num_atoms is None or p_mass is None or q_mass is None:
        return None
    q_covers = q.num_atoms

    def kl_finite_sum(a: Parameters, b: Parameters) -> Tensor:
        n = num_atoms(**a)
        if q_covers is not None:
            # q's atoms beyond p's belong to the sum: each adds its mass
            n = max(n, q_covers(**b))
        k = torch.arange(n, device=next(iter(a.values())).device)
        log_p, log_q = p_mass(k, **a), q_mass(k, **b)
        total = generalised_kl_of_logs(log_p, log_q).sum(-1)
        if q_covers is None:
            total = total - torch.expm1(torch.logsumexp(log_q, -1))
        return total

    kl_finite_sum.__doc__ = "KL = sum_k p_k log(p_k / q_k), in non-negative terms."
    return derived_pair(
        p,
        q,
        kl_finite_sum,
        method="exact sum",
        finite="q has mass wherever p has",
        reference="the definition, summed",
    )
