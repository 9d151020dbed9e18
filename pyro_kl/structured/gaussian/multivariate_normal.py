"""Multivariate normals by their Cholesky factors; Pyro's subclasses have the same KL."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, constraints

from ...numerics.autograd.fused import fused
from ...numerics.dtypes import summed_to
from ...registry.pair import Case
from ...registry.shapes import broadcast_batch
from ...registry.structured_family import StructuredFamily, register_each
from .factors import (
    common_batch,
    diagonal,
    in_one_dtype,
    is_single,
    lower_part,
    of_vector,
    room_for,
    scale_divergence,
    solve_in_place,
    solve_lower,
    subtract_into,
    without_first_order,
)

MULTIVARIATE_NORMAL = StructuredFamily(
    MultivariateNormal,
    {"loc": constraints.real_vector, "scale_tril": constraints.lower_cholesky},
)


def _forward(
    p_loc: Tensor, p_tril: Tensor, q_loc: Tensor, q_tril: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """[y | N] = L_q^-1 [m_p - m_q | L_p - L_q] in one solve, and the sum of their squares."""
    distances = room_for(q_tril, common_batch((p_loc, q_loc), (p_tril, q_tril)))
    matrix = distances[..., 1:]
    subtract_into(distances.select(-1, 0), p_loc, q_loc)
    subtract_into(matrix, p_tril, q_tril)
    solve_in_place(q_tril, distances, transposed=False)
    rows = torch.linalg.vector_norm(distances, dim=-1)
    ratio = diagonal(p_tril) / diagonal(q_tril)
    kl = torch.add(without_first_order(diagonal(matrix), ratio), rows * rows, alpha=0.5)
    return kl.sum(-1), (distances,)


def _backward(
    grad: Tensor, inputs: Sequence[Tensor], kept: list[Tensor], needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """With [z | Z] = L_q'^-1 [y | N], in lower triangles, s and sigma the diagonals:

    dKL/dm_p = z,  dKL/dL_p = Z + diag(u/s),  u = s/sigma - 1, which is N's diagonal,
    dKL/dL_q = -(Z + Z N' + z y') - diag(u/sigma)
    """
    (p_loc, p_tril, q_loc, q_tril), distances = inputs, kept.pop()
    g = of_vector(grad, distances)
    widening = g * diagonal(distances[..., 1:])
    solved = distances * g.unsqueeze(-1) if needed[3] else distances.mul_(g.unsqueeze(-1))
    solve_in_place(q_tril, solved, transposed=True)
    z, matrix, by_p, by_q = solved.select(-1, 0), solved[..., 1:], None, None
    if needed[3]:
        by_q, sigma = _by_factor(solved, distances, q_tril), diagonal(q_tril)
        diagonal(by_q).sub_(summed_to(widening / sigma, sigma))
    if needed[1]:
        diagonal(matrix).add_(widening / diagonal(p_tril))
        by_p = lower_part(summed_to(matrix, p_tril))
    by_loc = summed_to(z, p_loc) if needed[0] else None
    return by_loc, by_p, summed_to(-z, q_loc) if needed[2] else None, by_q


def _by_factor(solved: Tensor, distances: Tensor, q_tril: Tensor) -> Tensor:
    """-(Z + Z N' + z y') in a triangle, summed over the batch dims that q's factor lacks."""
    matrix = summed_to(solved[..., 1:], q_tril)
    if solved.dim() == 2:
        return torch.addmm(matrix, solved, distances.mT, beta=-1, alpha=-1).tril_()
    if is_single(q_tril):
        # one matrix product multiplies and sums over the batch
        flat = [x.movedim(-2, 0).flatten(1) for x in (solved, distances)]
        return (flat[0] @ flat[1].mT).reshape(q_tril.shape).add_(matrix).neg_().tril_()
    return summed_to(solved @ distances.mT, q_tril).add_(matrix).neg_().tril_()


@fused(_forward, _backward)
def kl_of_factors(p_loc: Tensor, p_tril: Tensor, q_loc: Tensor, q_tril: Tensor) -> Tensor:
    """KL of two multivariate normals given by their means and Cholesky factors."""
    y = solve_lower(q_tril, (p_loc - q_loc).unsqueeze(-1))
    n = solve_lower(q_tril, (p_tril - q_tril).tril())
    scales = scale_divergence(diagonal(p_tril), diagonal(q_tril)).sum(-1)
    return scales + 0.5 * (y.square().sum((-2, -1)) + n.square().sum((-2, -1)))


_CASES = [
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
]


@register_each(
    (MULTIVARIATE_NORMAL, MULTIVARIATE_NORMAL, _CASES),
    reference="the KL of two normals; difference form derived in the docstring",
    replaces="torch loses all digits where p is close to q, copies a shared factor along the "
    "batch, and cannot be traced or compiled",
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
