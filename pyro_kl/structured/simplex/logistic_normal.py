"""LogisticNormal: a normal vector mapped to the simplex by stick breaking; against Dirichlet."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    Dirichlet,
    Independent,
    LogisticNormal,
    Normal,
    SigmoidTransform,
    TransformedDistribution,
    constraints,
    kl_divergence,
)

from ...numerics.dtypes import in_float64, promoted
from ...numerics.special.gamma import log_beta, trigamma
from ...numerics.special.log_odds import mean_softplus_excess
from ...numerics.special.logarithms import HALF_LOG_TAU
from ...registry.entropy import entropy_formula
from ...registry.pair import Case
from ...registry.renyi import equal_products
from ...registry.shapes import broadcast_batch
from ...registry.structured_family import StructuredFamily, register_each
from ...wrappers.transformed.log_odds import kl_of_sticks, sticks
from .dirichlet import DIRICHLET

LOGISTIC_NORMAL = StructuredFamily(
    LogisticNormal,
    {"loc": constraints.real_vector, "scale": constraints.independent(constraints.positive, 1)},
)
_NORMAL = {"loc": [0.3, -1.0], "scale": [0.5, 2.0]}
_WIDE = {"loc": [4.0, -6.0], "scale": [9.0, 30.0]}
_DIRICHLET = {"concentration": [2.0, 0.7, 3.0]}
_REFERENCE = "derived in the docstring; Johnson, Kotz & Balakrishnan (1995), ch. 25: log odds"
_SAME_CLASS = [
    Case(_NORMAL, _WIDE, 4.7005824528255352525),
    Case({"loc": [1.0], "scale": [1.0]}, {"loc": [0.0], "scale": [1.0]}, 0.5),
]
_TO_DIRICHLET = [
    Case(_NORMAL, _DIRICHLET, 0.80255250407546186736),
    Case(_WIDE, _DIRICHLET, 51.604847549664202857),
]


@register_each(
    (LOGISTIC_NORMAL, LOGISTIC_NORMAL, _SAME_CLASS),
    reference="a shared injective map leaves the KL unchanged",
    method="rule",
)
def kl_logistic_normal(p: LogisticNormal, q: LogisticNormal) -> Tensor:
    """KL of the two products of normals that stick breaking maps to the simplex."""
    shape = broadcast_batch(p, q)
    return kl_divergence(p.base_dist, q.base_dist).expand(shape)


@register_each(
    (DIRICHLET, LOGISTIC_NORMAL, [Case(_DIRICHLET, _NORMAL, 1.2451856155896264134)]),
    reference=_REFERENCE,
)
def kl_dirichlet_logistic_normal(p: Dirichlet, q: LogisticNormal) -> Tensor:
    r"""KL(Dirichlet(a) || LogisticNormal(m, s)), the sum over independent sticks.

    Stick k of the Dirichlet is Beta(a_k, r_k), whose log odds y have the mean psi(a) - psi(r) and
    the variance psi'(a) + psi'(r); the normal's are of y + log(K - k):

        KL = sum_k [log s_k + log(2 pi)/2 + E (y + log(K - k) - m_k)^2 / (2 s_k^2) - H(y)]
    """
    shape = broadcast_batch(p, q)
    a, r, shift = sticks(in_float64(p.concentration))
    m, s = in_float64(q.loc), in_float64(q.scale)
    psi_a, psi_r, psi_both = torch.digamma(a), torch.digamma(r), torch.digamma(a + r)
    entropy = log_beta(a, r) - a * (psi_a - psi_both) - r * (psi_r - psi_both)
    square = trigamma(a) + trigamma(r) + (psi_a - psi_r + shift - m).square()
    each = s.log() + HALF_LOG_TAU + square / (2 * s.square()) - entropy
    return each.sum(-1).to(promoted((p.concentration, q.loc))).expand(shape)


@register_each(
    (LOGISTIC_NORMAL, DIRICHLET, _TO_DIRICHLET), reference=_REFERENCE, method="quadrature"
)
def kl_logistic_normal_dirichlet(p: LogisticNormal, q: Dirichlet) -> Tensor:
    r"""KL(LogisticNormal(m, s) || Dirichlet(a)): one integral E softplus(y) for each stick.

    KL = sum_k [log B(a_k, r_k) + (a_k + r_k) E softplus(y) - a_k E y - H(N(m_k, s_k))]

    Under q stick k is a Beta(a_k, r_k), as in the reverse KL. `kl_normal_log_odds` has it in a
    form that keeps its digits where p is close to q.
    """
    shape = broadcast_batch(p, q)
    return kl_of_sticks(p.loc, p.scale, q.concentration).expand(shape)


@entropy_formula(LogisticNormal, method="quadrature")
def entropy_of_logistic_normal(p: LogisticNormal) -> Tensor:
    r"""That of the normals, and the mean log Jacobian of stick breaking.

    Stick k = 1 .. K - 1 is z = 1/(1 + exp(-y)), and adds log z + (K - k) log(1 - z) to it.
    """
    loc, scale = in_float64(p.loc), in_float64(p.scale)
    left = torch.arange(loc.shape[-1], 0, -1, dtype=loc.dtype, device=loc.device)
    mean = loc - left.log()
    softplus = mean_softplus_excess(mean, scale, torch.zeros_like(mean)) + math.log(2) + mean / 2
    each = scale.log() + HALF_LOG_TAU + 0.5 + mean - (1 + left) * softplus
    return each.sum(-1)


@equal_products(Dirichlet, LogisticNormal)
@equal_products(LogisticNormal, Dirichlet)
def by_sticks(
    p: Dirichlet | LogisticNormal, q: Dirichlet | LogisticNormal
) -> tuple[Independent, Independent]:
    """The log odds of the independent sticks, as in the KL."""
    sides = []
    for side in (p, q):
        stick: Beta | Normal | TransformedDistribution
        if isinstance(side, Dirichlet):
            a, rest, _ = sticks(side.concentration)
            beta = Beta(a, rest, validate_args=False)
            stick = TransformedDistribution(beta, [SigmoidTransform().inv], validate_args=False)
        else:
            left = torch.arange(side.loc.shape[-1], 0, -1).to(side.loc)
            stick = Normal(side.loc - left.log(), side.scale, validate_args=False)
        sides.append(Independent(stick, 1, validate_args=False))
    return sides[0], sides[1]
