"""Dirichlet, and the one-hot form of Categorical."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Dirichlet, OneHotCategorical, constraints, kl_divergence

from ...numerics.dtypes import in_float64, promoted
from ...numerics.special.divergences import kl_div_of_difference
from ...numerics.special.gamma import stirling, stirling_slope
from ...numerics.special.gamma_divergences import bregman_stirling
from ...registry.entropy import entropy_formula
from ...registry.pair import Case
from ...registry.renyi import geometric_mixture
from ...registry.shapes import broadcast_batch
from ...registry.structured_family import StructuredFamily, register_each

DIRICHLET = StructuredFamily(
    Dirichlet, {"concentration": constraints.independent(constraints.positive, 1)}
)
ONE_HOT = StructuredFamily(
    OneHotCategorical, {"probs": constraints.simplex}, make=lambda probs: OneHotCategorical(probs)
)


@geometric_mixture(Dirichlet)
def mixture(p: Dirichlet, q: Dirichlet, alpha: float) -> tuple[Dirichlet, Tensor]:
    """The concentrations less 1 are the natural parameters."""
    a, b = in_float64(p.concentration), in_float64(q.concentration)
    concentration = b + alpha * (a - b)
    inside = ~(concentration <= 0).any(-1)
    safe = torch.where(inside.unsqueeze(-1), concentration, 1.0)
    return Dirichlet(safe, validate_args=False), inside


@entropy_formula(Dirichlet)
def entropy_of_dirichlet(p: Dirichlet) -> Tensor:
    """In Stirling's remainder F: no terms that grow with the concentrations have to cancel.

    log B(a) = sum [a log a - a + F(a)] - ..., and E log x_k = psi(a_k) - psi(A), psi = log + F'.
    """
    a = in_float64(p.concentration)
    total = a.sum(-1)
    proportions = torch.log(a / total.unsqueeze(-1))
    each = stirling(a) + proportions + (1 - a) * stirling_slope(a)
    d = a.shape[-1]
    return each.sum(-1) - stirling(total) - (d - total) * stirling_slope(total)


_CASES = [
    Case(
        {"concentration": [2.0, 3.0, 0.5]},
        {"concentration": [1.0, 1.0, 1.0]},
        1.2215298104258609365,
    ),
    Case(
        {"concentration": [1e6, 3e5, 20.0]},
        {"concentration": [1.01e6, 3.03e5, 20.2]},
        5.0081512942708874206e-5,
    ),
]
_ONE_HOT_CASE = Case(
    {"probs": [0.2, 0.3, 0.5]}, {"probs": [0.4, 0.4, 0.2]}, 0.23321130808955418797
)


@register_each(
    (DIRICHLET, DIRICHLET, _CASES),
    reference="Penny (2001), KL divergences of Normal, Gamma, Dirichlet and Wishart densities; "
    "split derived in the docstring",
    replaces="torch's difference of lgammas has no digits at large concentrations (negative KLs "
    "in float32), and it broadcasts event shapes",
)
def kl_dirichlet_dirichlet(p: Dirichlet, q: Dirichlet) -> Tensor:
    r"""KL(Dirichlet(a) || Dirichlet(b)), as for Beta, with Stirling's leading term split off.

    With totals A and B, and D_F the divergence of F(x) = lgamma(x) - x log x + x,

        KL = B KL(Categorical(b / B) || Categorical(a / A)) + sum_k D_F(b_k, a_k) - D_F(B, A)
    """
    shape = broadcast_batch(p, q)
    a, b = in_float64(p.concentration), in_float64(q.concentration)
    a_total, b_total = a.sum(-1, keepdim=True), b.sum(-1, keepdim=True)
    excess = (b - a) - a * ((b - a).sum(-1, keepdim=True) / a_total)
    proportions = kl_div_of_difference(b, a * (b_total / a_total), excess).sum(-1)
    stirling = bregman_stirling(b, a).sum(-1) - bregman_stirling(b_total, a_total).squeeze(-1)
    dtype = promoted((p.concentration, q.concentration))
    return (proportions + stirling).to(dtype).expand(shape)


@register_each(
    (ONE_HOT, ONE_HOT, [_ONE_HOT_CASE]),
    finite="q has mass wherever p has",
    reference="the definition, summed",
    method="exact sum",
    replaces="torch clamps, and broadcasts event shapes to a negative KL",
)
def kl_one_hot_one_hot(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    """KL of the two Categoricals."""
    return kl_divergence(p._categorical, q._categorical).expand(broadcast_batch(p, q))
