"""Multivariate normals against products of univariate distributions, in both directions."""

from __future__ import annotations

from collections.abc import Sequence

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

from ...numerics.autograd.fused import fused
from ...numerics.dtypes import in_float64, summed_to
from ...registry.pair import Case
from ...registry.reduction import no_formula
from ...registry.register import family_of
from ...registry.shapes import as_delta, broadcast_batch, check_event_shapes, normals, sum_events
from ...registry.structured_family import StructuredFamily, register_each
from ...registry.tensors import promoted
from .factors import (
    diagonal,
    in_one_dtype,
    of_vector,
    row_norms,
    scale_divergence,
    solve_lower,
    without_first_order,
)
from .low_rank_multivariate_normal import LOW_RANK, capacitance, parameters
from .multivariate_normal import MULTIVARIATE_NORMAL

PRODUCT_OF_NORMALS = StructuredFamily(
    Independent,
    {"loc": constraints.real_vector, "scale": constraints.independent(constraints.positive, 1)},
    make=normals,
)

_CORRELATED = {"loc": [1.0, -0.5], "scale_tril": [[1.0, 0.0], [0.6, 0.8]]}
_LOW_RANK = {"loc": [0.5, 0.0], "cov_factor": [[1.0], [-0.5]], "cov_diag": [0.3, 2.0]}
_PRODUCT = {"loc": [0.0, 1.0], "scale": [2.0, 0.5]}


# --- a multivariate normal against a product ----------------------------------------------------


def _forward(
    loc: Tensor, tril: Tensor, mu: Tensor, sigma: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    s = diagonal(tril)
    wider, shift = s - sigma, (loc - mu) / sigma
    u, below = wider / sigma, row_norms(tril) / sigma[..., 1:]
    rest = u * u + shift * shift
    rest[..., 1:].add_(below * below)
    kl = torch.add(without_first_order(u, s / sigma), rest, alpha=0.5)
    return kl.sum(-1), (wider, u, shift, rest)


def _backward(
    grad: Tensor, inputs: Sequence[Tensor], kept: list[Tensor], needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """With u = s/sigma - 1, d = (m - mu)/sigma, and r the sum of the squares in a coordinate:

    dKL/dm = d/sigma,  dKL/dL = L_ij/sigma^2 below and (u + u sigma/s)/sigma on the diagonal,
    dKL/dmu = -d/sigma,  dKL/dsigma = -(2 u + r)/sigma
    """
    (loc, tril, mu, sigma), (wider, u, shift, rest) = inputs, kept
    g = of_vector(grad, sigma) / sigma
    by_loc, by_tril, by_sigma = g * shift, None, None
    if needed[1]:
        by_tril = tril * (g / sigma).unsqueeze(-1)
        torch.mul(g, u + wider / (wider + sigma), out=diagonal(by_tril))
        by_tril = summed_to(by_tril, tril)
    if needed[3]:
        by_sigma = summed_to(-g * (u + u + rest), sigma)
    return (
        summed_to(by_loc, loc) if needed[0] else None,
        by_tril,
        summed_to(-by_loc, mu) if needed[2] else None,
        by_sigma,
    )


@fused(_forward, _backward)
def kl_of_factor_and_scales(loc: Tensor, tril: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """KL(N(m, L L') || N(mu, diag(sigma^2))), O(d^2) in time and memory."""
    s = diagonal(tril)
    u, d = (s - sigma) / sigma, (loc - mu) / sigma
    below = tril.tril(-1).square().sum(-1) / sigma.square()
    return (scale_divergence(s, sigma) + 0.5 * (below + u.square() + d.square())).sum(-1)


_AGAINST_PRODUCT = [
    Case(_CORRELATED, _PRODUCT, 5.9731435513142097891),
    Case(
        {"loc": [0.0, 0.0], "scale_tril": [[1.000001, 0.0], [1e-6, 1.0]]},
        {"loc": [0.0, 0.0], "scale": [1.0, 1.0]},
        1.4999996665023834276e-12,
    ),
]


@register_each(
    (MULTIVARIATE_NORMAL, PRODUCT_OF_NORMALS, _AGAINST_PRODUCT),
    finite="the marginals' KLs are",
    reference="Cover & Thomas (2006), sec. 2.5: chain rule; derived in the docstring",
)
def kl_multivariate_normal_product(p: MultivariateNormal, q: Independent) -> Tensor:
    r"""KL(N(m, L L') || product of univariate distributions), without a solve.

    Against Normal(mu_i, s_i), with N(m_i, L_ii) the i-th coordinate given those before it,

        KL = sum_i KL(N(m_i, L_ii) || N(mu_i, s_i)) + sum_{j < i} L_ij^2 / (2 s_i^2)

    and against any other product the KLs of the marginals plus the total correlation
    sum_i log(sqrt(Sigma_ii) / L_ii).
    """
    shape, tril, base = broadcast_batch(p, q), p._unbroadcasted_scale_tril, q.base_dist
    if isinstance(base, Normal):
        kl = in_one_dtype(kl_of_factor_and_scales, p.loc, tril, base.loc, base.scale)
        return kl if kl.shape == shape else kl.expand(shape)
    base = _product_base(q, p, q)
    s, below = diagonal(tril), tril.tril(-1).square().sum(-1)
    marginal = Normal(p.loc, (s.square() + below).sqrt(), validate_args=False)
    correlation = 0.5 * torch.log1p(below / s.square())
    return _summed(kl_divergence(marginal, base) + correlation, p, q)


@register_each(
    (LOW_RANK, PRODUCT_OF_NORMALS, [Case(_LOW_RANK, _PRODUCT, 5.2017753098260150681)]),
    finite="the marginals' KLs are",
    reference="the KL of two normals; matrix determinant lemma",
)
def kl_low_rank_product(p: LowRankMultivariateNormal, q: Independent) -> Tensor:
    r"""KL(N(m, D + W W') || product of univariate distributions), O(d r^2).

    KL = sum_i [KL(N(m_i, sqrt(D_i)) || N(mu_i, s_i)) + sum_k W_ik^2 / (2 s_i^2)]
         - log det(I + W' D^-1 W) / 2

    against Normals; the marginals' KLs plus the total correlation against others.
    """
    base = _product_base(q, p, q)
    loc, factor, diag = parameters(p)
    below, log_det = factor.square().sum(-1), _half_log_det(capacitance(factor, diag))
    if isinstance(base, Normal):
        inner = Normal(loc, diag.sqrt(), validate_args=False)
        kl = kl_divergence(inner, base) + below / (2 * in_float64(base.scale) ** 2)
    else:
        marginal = Normal(loc, (diag + below).sqrt(), validate_args=False)
        kl = kl_divergence(marginal, base) + 0.5 * torch.log1p(below / diag)
    return (_summed(kl, p, q) - log_det).to(promoted((p, q)))


# --- a product against a multivariate normal ----------------------------------------------------
#
# E log q depends on the product through its means and variances only. With the precision matrix
# Lambda, and r_i the univariate normal of mean mu_i and precision Lambda_ii,
#
#     KL(prod p_i || q) = sum_i KL(p_i || r_i) + sum_{i != j} Lambda_ij d_i d_j / 2
#                         + [sum_i log Lambda_ii - log det Lambda] / 2,   d = E x - mu.


@register_each(
    (
        PRODUCT_OF_NORMALS,
        MULTIVARIATE_NORMAL,
        [Case(_PRODUCT, _CORRELATED, 6.0424814486857896145)],
    ),
    finite="p's coordinates against normals are",
    reference="the KL of two normals; split derived in the docstring",
    replaces="Pyro's raises an empty NotImplementedError for other bases than Normal, an "
    "AssertionError for other shapes, and drops a Delta's log_density",
)
def kl_product_multivariate_normal(p: Independent, q: MultivariateNormal) -> Tensor:
    r"""KL(product of univariate distributions || N(mu, L L')).

    For Normals M = L^-1 diag(s) is triangular with diagonal s_i / L_ii:

        KL = sum_i KL(N(0, s_i) || N(0, L_ii)) + sum_{j < i} M_ij^2 / 2 + |L^-1 (m - mu)|^2 / 2
    """
    check_event_shapes(p, q)
    if (point := as_delta(p)) is not None:
        return kl_divergence(point, q)
    base = _product_base(p, p, q)
    mu, tril = in_float64(q.loc), in_float64(q._unbroadcasted_scale_tril)
    height = diagonal(tril)
    loc = _mean(base, mu)
    shift = solve_lower(tril, (loc - mu).unsqueeze(-1)).squeeze(-1).square()
    if isinstance(base, Normal):
        scale = in_float64(base.scale).expand(loc.shape)
        u = (scale - height) / height
        mixed = solve_lower(tril, torch.diag_embed(scale)).tril(-1).square().sum(-1)
        kl = scale_divergence(scale, height) + 0.5 * (mixed + u.square() + shift)
        return _summed(kl, p, q).to(promoted((p, q)))
    inverse = solve_lower(tril, torch.diag_embed(torch.ones_like(height)))
    precision, others = inverse.square().sum(-2), inverse.tril(-1).square().sum(-2)
    alone = kl_divergence(base, Normal(mu, precision.rsqrt(), validate_args=False))
    cross = 0.5 * (shift - precision * (loc - mu).square())
    kl = alone + cross + 0.5 * torch.log1p(others * height.square())
    return _summed(kl, p, q).to(promoted((p, q)))


@register_each(
    (PRODUCT_OF_NORMALS, LOW_RANK, [Case(_PRODUCT, _LOW_RANK, 1.4896382415758541055)]),
    finite="p's coordinates against normals are",
    reference="the KL of two normals; Woodbury's identity",
)
def kl_product_low_rank(p: Independent, q: LowRankMultivariateNormal) -> Tensor:
    r"""KL(product of univariate distributions || N(mu, D + W W')), O(d r^2).

    With B = chol(I + W' D^-1 W)^-1 W' D^-1, the inverse covariance is D^-1 - B' B. For Normals

        KL = sum_i [KL(N(m_i, s_i) || N(mu_i, sqrt(D_i))) - sum_k B_ki^2 s_i^2 / 2]
             - |B (m - mu)|^2 / 2 + log det(I + W' D^-1 W) / 2
    """
    check_event_shapes(p, q)
    if (point := as_delta(p)) is not None:
        return kl_divergence(point, q)
    base = _product_base(p, p, q)
    mu, factor, diag = parameters(q)
    c = capacitance(factor, diag)
    b = solve_lower(c, (factor / diag.unsqueeze(-1)).mT)
    gap = _mean(base, mu) - mu
    shared = b.square().sum(-2)
    if isinstance(base, Normal):
        alone = kl_divergence(base, Normal(mu, diag.sqrt(), validate_args=False))
        alone = alone - 0.5 * shared * in_float64(base.scale).square()
    else:
        alone = kl_divergence(base, Normal(mu, (1 / diag - shared).rsqrt(), validate_args=False))
        alone = alone + 0.5 * (shared * gap.square() + torch.log1p(-diag * shared))
    shift = (b @ gap.unsqueeze(-1)).square().sum((-2, -1))
    return (_summed(alone, p, q) - 0.5 * shift + _half_log_det(c)).to(promoted((p, q)))


def _mean(base: Distribution, like: Tensor) -> Tensor:
    """E x of each coordinate, in float64 if the family is declared."""
    if isinstance(base, Normal):
        return in_float64(base.loc).expand(torch.broadcast_shapes(base.batch_shape, like.shape))
    family = family_of(type(base))
    if family is not None and "mean" in family.moments:
        moment = family.moments["mean"]
        given = {name: in_float64(x) for name, x in family.of(base).items()}
        for condition in moment.finite:
            given = condition.made_safe(given)
        mean = moment.value(**given)
    else:
        mean = in_float64(base.mean.nan_to_num(nan=0.0))  # a Cauchy's mean is nan
    # where there is no mean the KL is infinite: any finite number will do
    mean = torch.where(mean.isinf(), 0.0, mean)
    return mean.expand(torch.broadcast_shapes(base.batch_shape, like.shape))


def _product_base(product: Independent, p: Distribution, q: Distribution) -> Distribution:
    """The base distribution of a product, which must be univariate."""
    check_event_shapes(p, q)
    if product.base_dist.event_shape:
        raise no_formula(p, q)
    return product.base_dist


def _half_log_det(factor: Tensor) -> Tensor:
    """Half the log determinant of A from its Cholesky factor."""
    return diagonal(factor).log().sum(-1)


def _summed(kl: Tensor, p: Distribution, q: Distribution) -> Tensor:
    return sum_events(kl, broadcast_batch(p, q), q.event_shape)
