"""Multivariate normals against products of univariate laws, in both directions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    constraints,
    kl_divergence,
)

from ..pair import Case
from ..registry import no_formula, register
from ..shapes import as_delta, broadcast_batch, check_event_shapes, normals, sum_events
from ..structured_family import StructuredFamily
from .multivariate_normal import MULTIVARIATE_NORMAL

PRODUCT_OF_NORMALS = StructuredFamily(
    Independent,
    {"loc": constraints.real_vector, "scale": constraints.independent(constraints.positive, 1)},
    make=normals,
)
LOW_RANK = StructuredFamily(
    LowRankMultivariateNormal,
    {
        "loc": constraints.real_vector,
        "cov_factor": constraints.independent(constraints.real, 2),
        "cov_diag": constraints.independent(constraints.positive, 1),
    },
)

_CORRELATED = {"loc": [1.0, -0.5], "scale_tril": [[1.0, 0.0], [0.6, 0.8]]}
_LOW_RANK = {"loc": [0.5, 0.0], "cov_factor": [[1.0], [-0.5]], "cov_diag": [0.3, 2.0]}
_PRODUCT = {"loc": [0.0, 1.0], "scale": [2.0, 0.5]}


@register(
    MultivariateNormal,
    Independent,
    cases=[
        Case(_CORRELATED, _PRODUCT, 5.9731435513142097891),
        Case(
            {"loc": [0.0, 0.0], "scale_tril": [[1.000001, 0.0], [1e-6, 1.0]]},
            {"loc": [0.0, 0.0], "scale": [1.0, 1.0]},
            1.4999996665023834276e-12,
        ),
    ],
    finite="the marginals' KLs are",
    reference="Cover & Thomas (2006), sec. 2.5: chain rule; derived in the docstring",
    make_p=MULTIVARIATE_NORMAL,
    make_q=PRODUCT_OF_NORMALS,
)
def kl_multivariate_normal_product(p: MultivariateNormal, q: Independent) -> Tensor:
    r"""KL(N(m, L L') || product of univariate laws), without a solve.

    Against Normal(mu_i, s_i), with N(m_i, L_ii) the i-th coordinate given those before it,

        KL = sum_i KL(N(m_i, L_ii) || N(mu_i, s_i)) + sum_{j < i} L_ij^2 / (2 s_i^2)

    and against any other product the KLs of the marginals plus the total correlation
    sum_i log(sqrt(Sigma_ii) / L_ii).
    """
    base = _product_base(q, p, q)
    scale_tril = p._unbroadcasted_scale_tril
    diagonal = scale_tril.diagonal(dim1=-2, dim2=-1)
    below = scale_tril.tril(-1).square().sum(-1)
    if isinstance(base, Normal):
        kl = kl_divergence(Normal(p.loc, diagonal, validate_args=False), base)
        return _summed(kl + below / (2 * base.scale**2), p, q)
    marginal = Normal(p.loc, (diagonal.square() + below).sqrt(), validate_args=False)
    correlation = 0.5 * torch.log1p(below / diagonal.square())
    return _summed(kl_divergence(marginal, base) + correlation, p, q)


@register(
    Independent,
    MultivariateNormal,
    cases=[Case(_PRODUCT, _CORRELATED, 6.0424814486857896145)],
    reference="the KL of two normals; split derived in the docstring",
    replaces="Pyro's raises an empty NotImplementedError for other bases than Normal, an "
    "AssertionError for other shapes, and drops a Delta's log_density",
    make_p=PRODUCT_OF_NORMALS,
    make_q=MULTIVARIATE_NORMAL,
)
def kl_product_multivariate_normal(p: Independent, q: MultivariateNormal) -> Tensor:
    r"""KL(product of Normals || N(mu, L L')).

    M = L^-1 diag(s) is triangular with diagonal s_i / L_ii:

        KL = sum_i KL(N(0, s_i) || N(0, L_ii)) + sum_{j < i} M_ij^2 / 2 + |L^-1 (m - mu)|^2 / 2
    """
    check_event_shapes(p, q)
    if (point := as_delta(p)) is not None:
        return kl_divergence(point, q)
    base = _normal_base(p, q)
    loc, scale = torch.broadcast_tensors(base.loc, base.scale)
    scale_tril = q._unbroadcasted_scale_tril
    diagonal = scale_tril.diagonal(dim1=-2, dim2=-1)
    width = Normal(torch.zeros_like(scale), scale, validate_args=False)
    height = Normal(torch.zeros_like(diagonal), diagonal, validate_args=False)
    mixed = _solve(scale_tril, torch.diag_embed(scale)).tril(-1)
    shift = _solve(scale_tril, (loc - q.loc).unsqueeze(-1)).squeeze(-1)
    kl = kl_divergence(width, height) + 0.5 * (mixed.square().sum(-1) + shift.square())
    return _summed(kl, p, q)


@register(
    LowRankMultivariateNormal,
    Independent,
    cases=[Case(_LOW_RANK, _PRODUCT, 5.2017753098260150681)],
    reference="the KL of two normals; matrix determinant lemma",
    make_p=LOW_RANK,
    make_q=PRODUCT_OF_NORMALS,
)
def kl_low_rank_product(p: LowRankMultivariateNormal, q: Independent) -> Tensor:
    r"""KL(N(m, D + W W') || product of Normals), O(d r^2).

    KL = sum_i [KL(N(m_i, sqrt(D_i)) || N(mu_i, s_i)) + sum_k W_ik^2 / (2 s_i^2)]
         - log det(I + W' D^-1 W) / 2
    """
    base = _product_base(q, p, q)
    below = p._unbroadcasted_cov_factor.square().sum(-1)
    capacitance = p._capacitance_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    if isinstance(base, Normal):
        inner = Normal(p.loc, p._unbroadcasted_cov_diag.sqrt(), validate_args=False)
        return (
            _summed(kl_divergence(inner, base) + below / (2 * base.scale**2), p, q) - capacitance
        )
    variance = p._unbroadcasted_cov_diag + below
    marginal = Normal(p.loc, variance.sqrt(), validate_args=False)
    correlation = 0.5 * torch.log1p(below / p._unbroadcasted_cov_diag)
    return _summed(kl_divergence(marginal, base) + correlation, p, q) - capacitance


@register(
    Independent,
    LowRankMultivariateNormal,
    cases=[Case(_PRODUCT, _LOW_RANK, 1.4896382415758541055)],
    reference="the KL of two normals; Woodbury's identity",
    make_p=PRODUCT_OF_NORMALS,
    make_q=LOW_RANK,
)
def kl_product_low_rank(p: Independent, q: LowRankMultivariateNormal) -> Tensor:
    r"""KL(product of Normals || N(mu, D + W W')), O(d r^2).

    With B = chol(I + W' D^-1 W)^-1 W' D^-1, the inverse covariance is D^-1 - B' B and

        KL = sum_i [KL(N(m_i, s_i) || N(mu_i, sqrt(D_i))) - sum_k B_ki^2 s_i^2 / 2]
             - |B (m - mu)|^2 / 2 + log det(I + W' D^-1 W) / 2
    """
    check_event_shapes(p, q)
    if (point := as_delta(p)) is not None:
        return kl_divergence(point, q)
    base = _normal_base(p, q)
    variance = q._unbroadcasted_cov_diag
    weighted = (q._unbroadcasted_cov_factor / variance.unsqueeze(-1)).mT
    b = _solve(q._capacitance_tril, weighted)
    outer = Normal(q.loc, variance.sqrt(), validate_args=False)
    kl = kl_divergence(base, outer) - 0.5 * b.square().sum(-2) * base.scale.square()
    shift = (b @ (base.loc - q.loc).unsqueeze(-1)).squeeze(-1)
    capacitance = q._capacitance_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return _summed(kl, p, q) - 0.5 * shift.square().sum(-1) + capacitance


def _product_base(product: Independent, p: Distribution, q: Distribution) -> Distribution:
    """The univariate laws whose product one side is."""
    check_event_shapes(p, q)
    if product.base_dist.event_shape:
        raise no_formula(p, q)
    return product.base_dist


def _normal_base(p: Independent, q: Distribution) -> Normal:
    base = _product_base(p, p, q)
    if not isinstance(base, Normal):
        raise no_formula(p, q)
    return base


def _solve(scale_tril: Tensor, right: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(scale_tril, right, upper=False)


def _summed(kl: Tensor, p: Distribution, q: Distribution) -> Tensor:
    return sum_events(kl, broadcast_batch(p, q), q.event_shape)
