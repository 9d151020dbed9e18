"""Multivariate normals of covariance D + W W', D diagonal and W of few columns."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal, constraints

from ...numerics.dtypes import in_float64, promoted
from ...numerics.special.divergences import itakura_saito
from ...numerics.special.logarithms import log1pmx
from ...registry.pair import Case
from ...registry.shapes import broadcast_batch
from ...registry.structured_family import StructuredFamily, register_each
from .factors import cholesky, diagonal, scale_divergence, solve_lower
from .multivariate_normal import MULTIVARIATE_NORMAL, kl_of_factors

LOW_RANK = StructuredFamily(
    LowRankMultivariateNormal,
    {
        "loc": constraints.real_vector,
        "cov_factor": constraints.independent(constraints.real, 2),
        "cov_diag": constraints.independent(constraints.positive, 1),
    },
)

_ONE = {"loc": [0.5, 0.0, 1.0], "cov_factor": [[1.0], [-0.5], [0.2]], "cov_diag": [0.3, 2.0, 1.0]}
_OTHER = {
    "loc": [0.0, 0.3, 1.5],
    "cov_factor": [[0.7, 0.1], [0.4, -1.0], [0.0, 0.3]],
    "cov_diag": [0.5, 1.0, 2.0],
}
_DENSE = {
    "loc": [1.0, -0.5, 0.2],
    "scale_tril": [[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.3, 0.2, 1.5]],
}


def parameters(distribution: LowRankMultivariateNormal) -> tuple[Tensor, Tensor, Tensor]:
    """The mean, W and D, in float64; the class keeps chol(I + W' D^-1 W) in its own precision."""
    factor, diag = distribution._unbroadcasted_cov_factor, distribution._unbroadcasted_cov_diag
    return in_float64(distribution.loc), in_float64(factor), in_float64(diag)


def with_identity(matrix: Tensor) -> Tensor:
    """The Cholesky factor of I + M."""
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return cholesky(eye + matrix)


def capacitance(factor: Tensor, diag: Tensor) -> Tensor:
    """The Cholesky factor of I + W' D^-1 W."""
    return with_identity(factor.mT @ (factor / diag.unsqueeze(-1)))


def dense_factor(factor: Tensor, diag: Tensor) -> Tensor:
    """The Cholesky factor of D + W W'."""
    root = diag.sqrt().unsqueeze(-1)
    scaled = factor / root
    return root * with_identity(scaled @ scaled.mT)


def trace_minus_log_det(matrix: Tensor) -> Tensor:
    """tr M - log det(I + M) of a symmetric M, from N = chol(I + M) - I, which is small with M."""
    n = with_identity(matrix) - torch.eye(matrix.shape[-1], dtype=matrix.dtype).to(matrix.device)
    return n.square().sum((-2, -1)) - 2 * log1pmx(diagonal(n)).sum(-1)


def _squares(matrix: Tensor) -> Tensor:
    return matrix.square().sum((-2, -1))


def _padded(factor: Tensor, columns: int) -> Tensor:
    return torch.nn.functional.pad(factor, (0, columns - factor.shape[-1]))


@register_each(
    (
        LOW_RANK,
        LOW_RANK,
        [
            Case(_ONE, _OTHER, 0.46628120458337581789),
            Case(_OTHER, _ONE, 0.54369240189106881667),
        ],
    ),
    reference="the KL of two normals; difference form derived in the docstring",
    replaces="torch loses all digits where p is close to q",
)
def kl_low_rank(p: LowRankMultivariateNormal, q: LowRankMultivariateNormal) -> Tensor:
    r"""KL(N(m, D + W W') || N(mu, E + V V')), O(d r^2), in terms of second order.

    After division by the square root of E: D = I + Delta, E = I, G = W - V, C = I + V' V,

        M = C^-1/2 (W' D^-1 W - V' V) C^-1/2
        2 KL = sum_i [Delta_i - log(1 + Delta_i)] + [tr M - log det(I + M)] + |G|^2
             - |C^-1/2 V' G|^2 - tr C^-1 [G' G + V' (Delta^2/D) V - 2 V' (Delta/D) G
             - G' (Delta/D) G] + (m - mu)' (I + V V')^-1 (m - mu)
    """
    shape = broadcast_batch(p, q)
    (p_loc, w, p_diag), (q_loc, v, q_diag) = parameters(p), parameters(q)
    rank, root = max(w.shape[-1], v.shape[-1]), q_diag.sqrt()
    w, v = (_padded(x, rank) / root.unsqueeze(-1) for x in (w, v))
    delta = ((p_diag - q_diag) / q_diag).unsqueeze(-1)
    share, g = delta / (1 + delta), w - v
    c = with_identity(v.mT @ v)
    difference = 0.5 * (g.mT @ (w + v) + (w + v).mT @ g) - w.mT @ (share * w)
    m = solve_lower(c, solve_lower(c, difference).mT)
    in_c = v.mT @ (delta * share * v) + g.mT @ ((1 - share) * g) - 2 * v.mT @ (share * g)
    gap = ((p_loc - q_loc) / root).unsqueeze(-1)
    twice = (
        itakura_saito(p_diag, q_diag).sum(-1)
        + trace_minus_log_det(0.5 * (m + m.mT))
        + _squares(g)
        - _squares(solve_lower(c, v.mT @ g))
        - diagonal(torch.cholesky_solve(in_c, c)).sum(-1)
        + _squares(gap)
        - _squares(solve_lower(c, v.mT @ gap))
    )
    return (0.5 * twice).to(promoted((p.loc, q.loc))).expand(shape)


@register_each(
    (LOW_RANK, MULTIVARIATE_NORMAL, [Case(_ONE, _DENSE, 2.4950406119982426929)]),
    reference="the KL of two normals",
    replaces="torch copies a shared factor along the batch, and cannot be traced or compiled",
)
def kl_low_rank_dense(p: LowRankMultivariateNormal, q: MultivariateNormal) -> Tensor:
    """KL of the dense distributions: q's solve is cubic in the dimension in any case."""
    shape = broadcast_batch(p, q)
    loc, factor, diag = parameters(p)
    q_loc, q_tril = (in_float64(x) for x in (q.loc, q._unbroadcasted_scale_tril))
    kl = kl_of_factors(loc, dense_factor(factor, diag), q_loc, q_tril)
    return kl.to(promoted((p.loc, q.loc))).expand(shape)


@register_each(
    (MULTIVARIATE_NORMAL, LOW_RANK, [Case(_DENSE, _ONE, 1.326864571505935403)]),
    reference="the KL of two normals; Woodbury's identity",
    replaces="torch evaluates float32 in float32",
)
def kl_dense_low_rank(p: MultivariateNormal, q: LowRankMultivariateNormal) -> Tensor:
    r"""KL(N(m, L L') || N(mu, D + W W')), O(d^2 r).

    With B = C^-1/2 W' D^-1, C = I + W' D^-1 W, the inverse covariance is D^-1 - B' B and

        KL = KL(N(m, L L') || N(mu, D)) - |B L|^2 / 2 - |B (m - mu)|^2 / 2 + log det(C) / 2
    """
    shape = broadcast_batch(p, q)
    mu, factor, diag = parameters(q)
    loc, tril = in_float64(p.loc), in_float64(p._unbroadcasted_scale_tril).tril()
    c = capacitance(factor, diag)
    b = solve_lower(c, (factor / diag.unsqueeze(-1)).mT)
    root, gap = diag.sqrt(), (loc - mu).unsqueeze(-1)
    alone = scale_divergence(diagonal(tril), root) + 0.5 * (diagonal(tril) / root - 1).square()
    below = (tril.tril(-1) / root.unsqueeze(-1)).square().sum(-1)
    spread = (gap.squeeze(-1) / root).square()
    kl = (alone + 0.5 * (below + spread)).sum(-1) + diagonal(c).log().sum(-1)
    kl = kl - 0.5 * (_squares(b @ tril) + _squares(b @ gap))
    return kl.to(promoted((p.loc, q.loc))).expand(shape)
