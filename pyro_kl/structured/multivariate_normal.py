"""Multivariate normals by their Cholesky factors, and Pyro's subclasses of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, constraints

from ..one_node import in_one_node
from ..pair import Case
from ..registry import register
from ..shapes import broadcast_batch
from ..structured_family import StructuredFamily
from .factors import (
    common_batch,
    diagonal,
    in_one_dtype,
    is_single,
    rows_first,
    scale_divergence,
    solve_in_place,
    solve_lower,
    squared_norm,
    summed_to,
    without_first_order,
)

MULTIVARIATE_NORMAL = StructuredFamily(
    MultivariateNormal,
    {"loc": constraints.real_vector, "scale_tril": constraints.lower_cholesky},
)


def _distances(p_loc: Tensor, p_tril: Tensor, q_loc: Tensor, q_tril: Tensor) -> Tensor:
    """[y | N] = L_q^-1 [m_p - m_q | L_p - L_q], in one solve and the memory of one matrix."""
    gap = p_loc - q_loc
    batch = common_batch(gap.shape[:-1], p_tril.shape[:-2], q_tril.shape[:-2])
    right = rows_first(q_tril, batch, gap.shape[-1] + 1)
    right[..., 0] = gap
    right[..., 1:].copy_(p_tril).sub_(q_tril)
    return solve_in_place(q_tril, right.tril_(1), transposed=False)


def _forward(
    p_loc: Tensor, p_tril: Tensor, q_loc: Tensor, q_tril: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    distances = _distances(p_loc, p_tril, q_loc, q_tril)
    s, sigma = diagonal(p_tril), diagonal(q_tril)
    scales = without_first_order((s - sigma) / sigma).sum(-1)
    return torch.add(scales, squared_norm(distances, (-2, -1)), alpha=0.5), (distances,)


def _backward(
    grad: Tensor, inputs: Sequence[Tensor], kept: Sequence[Tensor], asked: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """With [z | Z] = L_q'^-1 [y | N], in lower triangles, s and sigma the diagonals:

    dKL/dm_p = z,  dKL/dL_p = Z + diag(1/sigma - 1/s),
    dKL/dL_q = -(Z + Z N' + z y') - diag((s - sigma)/sigma^2)
    """
    (p_loc, p_tril, q_loc, q_tril), (distances,) = inputs, kept
    of_vector = grad.to(distances.dtype).unsqueeze(-1)
    solved = (distances.clone() if asked[3] else distances).mul_(of_vector.unsqueeze(-1))
    solve_in_place(q_tril, solved, transposed=True)
    z, matrix = solved[..., 0], solved[..., 1:]
    by_p = by_q = None
    if asked[1] or asked[3]:
        s, sigma = diagonal(p_tril), diagonal(q_tril)
        widening = of_vector * ((s - sigma) / sigma)
    if asked[3]:
        by_q = _products(solved, distances, q_tril).add_(summed_to(matrix, q_tril)).tril_()
        diagonal(by_q).add_(summed_to(widening / sigma, sigma))
        by_q.neg_()
    if asked[1]:
        # the copy is also what leaves the mean's column behind
        by_p = summed_to(matrix, p_tril).tril()
        diagonal(by_p).add_(summed_to(widening / s, s))
    by_loc = summed_to(z, p_loc) if asked[0] else None
    return by_loc, by_p, summed_to(-z, q_loc) if asked[2] else None, by_q


def _products(left: Tensor, right: Tensor, like: Tensor) -> Tensor:
    """left right', summed over the batch dims that `like` does not have, in one product."""
    if not is_single(like):
        return summed_to(left @ right.mT, like)
    flat = [x.movedim(-2, 0).reshape(x.shape[-2], -1) for x in (left, right)]
    return (flat[0] @ flat[1].mT).reshape(like.shape)


def _composed_distances(p_loc: Tensor, p_tril: Tensor, q_loc: Tensor, q_tril: Tensor) -> Tensor:
    """|L_q^-1 (m_p - m_q)|^2 + |L_q^-1 (L_p - L_q)|^2."""
    y = solve_lower(q_tril, (p_loc - q_loc).unsqueeze(-1))
    n = solve_lower(q_tril, (p_tril - q_tril).tril())
    return y.square().sum((-2, -1)) + n.square().sum((-2, -1))


@in_one_node(_forward, _backward)
def kl_of_factors(p_loc: Tensor, p_tril: Tensor, q_loc: Tensor, q_tril: Tensor) -> Tensor:
    """KL of two multivariate normals given by their means and Cholesky factors."""
    scales = scale_divergence(diagonal(p_tril), diagonal(q_tril)).sum(-1)
    return scales + 0.5 * _composed_distances(p_loc, p_tril, q_loc, q_tril)


@register(
    MultivariateNormal,
    MultivariateNormal,
    cases=[
        Case(
            {"loc": [1.0, -0.5], "scale_tril": [[1.0, 0.0], [0.6, 0.8]]},
            {"loc": [0.3, 0.0], "scale_tril": [[0.7, 0.0], [-0.2, 1.5]]},
            1.1288951667308097,
        ),
        Case(
            {"loc": [0.0], "scale_tril": [[1.0]]},
            {"loc": [1.0], "scale_tril": [[2.0]]},
            0.44314718055994530942,
        ),
    ],
    reference="the KL of two normals; difference form derived in the docstring",
    replaces="torch loses all digits where p is close to q, copies a shared factor along the "
    "batch, and cannot be traced or compiled",
    make_p=MULTIVARIATE_NORMAL,
    make_q=MULTIVARIATE_NORMAL,
)
def kl_multivariate_normal(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    r"""KL(N(m_p, L_p L_p') || N(m_q, L_q L_q')).

    The matrix N = L_q^-1 (L_p - L_q) = L_q^-1 L_p - I is triangular, zero where the two
    covariances agree, and known to all its digits. With the diagonals s and sigma,

        KL = sum_i [s_i/sigma_i - 1 - log(s_i/sigma_i)] + |N|^2 / 2
             + |L_q^-1 (m_p - m_q)|^2 / 2
    """
    shape = broadcast_batch(p, q)
    kl = in_one_dtype(
        kl_of_factors, p.loc, p._unbroadcasted_scale_tril, q.loc, q._unbroadcasted_scale_tril
    )
    return kl if kl.shape == shape else kl.expand(shape)
