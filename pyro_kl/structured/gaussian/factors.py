"""What the formulas on Cholesky factors share: triangular solves and the diagonal's divergence."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ...numerics.dtypes import in_float64
from ...numerics.special.divergences import itakura_saito

# u - log(1 + u) = u^2 integral_0^1 dt / (1/t + u): for |u| < 0.1 five Gauss-Legendre nodes
_X, _W = np.polynomial.legendre.leggauss(5)
_RULE = (torch.tensor(2 / (1 + _X)).unsqueeze(-1), torch.tensor(_W / 2).unsqueeze(-1))
_NEAR = 0.1
#: Up to this size float64 costs nothing beside the calls themselves.
_SMALL = 32


def in_one_dtype(kernel: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """A formula of tensors, carried in float64 as everywhere, but for large float32 matrices.

    A solve of float32 factors costs half of one in float64, and in the difference form it loses
    no digit to cancellation; what is summed over its diagonal is float64 in any case.
    """
    dtype = tensors[0].dtype
    for x in tensors:
        if x.dtype is not dtype:
            dtype = torch.promote_types(dtype, x.dtype)
    if dtype is torch.float64:
        return kernel(*[x if x.dtype is dtype else x.to(dtype) for x in tensors])
    if tensors[0].shape[-1] > _SMALL:
        return kernel(*[x.to(dtype) for x in tensors]).to(dtype)
    return kernel(*[in_float64(x) for x in tensors]).to(dtype)


def diagonal(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1)


def lower_part(matrix: Tensor) -> Tensor:
    """The lower triangle, in the memory of the matrix where that needs no copy."""
    return matrix.tril_() if matrix.dim() == 2 else matrix.contiguous().tril_()


def cholesky(matrix: Tensor) -> Tensor:
    """The Cholesky factor; nan where the matrix is, for which torch's gives up the whole batch."""
    known = matrix.isfinite().all(-1).all(-1)[..., None, None]
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return torch.where(known, torch.linalg.cholesky(torch.where(known, matrix, eye)), math.nan)


def row_norms(tril: Tensor) -> Tensor:
    """The norms of a lower triangular matrix's rows below the diagonal, but for the first.

    In memory such a row follows the end of the row before it, which is zero: one pass over the
    matrix, and no copy of it.
    """
    d = tril.shape[-1]
    *batch, row, column = tril.stride()
    if row != d or column != 1:
        return row_norms(tril.clone(memory_format=torch.contiguous_format))
    below = tril.as_strided(
        (*tril.shape[:-2], d - 1, d), (*batch, d + 1, 1), tril.storage_offset() + 1
    )
    return torch.linalg.vector_norm(below, dim=-1)


def of_vector(grad: Tensor, like: Tensor) -> Tensor:
    """A gradient of the value, in the dtype of the parameters, to multiply vectors with."""
    return (grad if grad.dtype is like.dtype else grad.to(like.dtype)).unsqueeze(-1)


def solve_lower(scale_tril: Tensor, right: Tensor) -> Tensor:
    """L^-1 R. A factor that the batch of R shares is not copied along it."""
    return _solve(scale_tril, right, transposed=False)


def solve_upper(scale_tril: Tensor, right: Tensor) -> Tensor:
    """L'^-1 R, likewise."""
    return _solve(scale_tril, right, transposed=True)


def is_single(scale_tril: Tensor) -> bool:
    """Whether a batch has one and the same factor."""
    return scale_tril.shape[:-2].numel() == 1


def _solve(scale_tril: Tensor, right: Tensor, transposed: bool) -> Tensor:
    triangle = scale_tril.mT if transposed else scale_tril
    if right.dim() == 2 or not is_single(scale_tril):
        return torch.linalg.solve_triangular(triangle, right, upper=transposed)
    d = right.shape[-2]
    rows_first = right.movedim(-2, 0)
    solved = torch.linalg.solve_triangular(
        triangle.reshape(d, d), rows_first.reshape(d, -1), upper=transposed
    )
    return solved.reshape(rows_first.shape).movedim(0, -2)


def room_for(scale_tril: Tensor, batch: torch.Size) -> Tensor:
    """Room for [y | N], so laid out that `solve_in_place` needs no copy."""
    d = scale_tril.shape[-1]
    if not batch:
        return scale_tril.new_empty((d, d + 1))
    if is_single(scale_tril):
        return scale_tril.new_empty((d, *batch, d + 1)).movedim(0, -2)
    return scale_tril.new_empty((*batch, d, d + 1))


def subtract_into(room: Tensor, x: Tensor, y: Tensor) -> None:
    """x - y, broadcast to where it is to stand."""
    if x.shape == room.shape or y.shape == room.shape:
        torch.sub(x, y, out=room)
    else:
        room.copy_(x).sub_(y)


def solve_in_place(scale_tril: Tensor, right: Tensor, transposed: bool) -> None:
    """L^-1 R or L'^-1 R in the memory of R, which `room_for` has laid out."""
    if right.dim() > 2 and is_single(scale_tril):
        # a view, or an error: never a copy
        right = right.movedim(-2, 0).view(right.shape[-2], -1)
        scale_tril = scale_tril.reshape(scale_tril.shape[-2:])
    # from the right and transposed: rows of R are what LAPACK calls columns
    triangle, room = scale_tril if transposed else scale_tril.mT, right.mT
    torch.linalg.solve_triangular(triangle, room, upper=not transposed, left=False, out=room)


def scale_divergence(p_scale: Tensor, q_scale: Tensor) -> Tensor:
    """KL(N(0, s) || N(0, sigma)) - (s/sigma - 1)^2 / 2 = s/sigma - 1 - log(s/sigma)."""
    return itakura_saito(in_float64(p_scale), in_float64(q_scale))


def without_first_order(u: Tensor) -> Tensor:
    """The value of `scale_divergence`, u - log(1 + u), in few calls of few kinds."""
    if u.dtype is not torch.float64:
        u = in_float64(u)
    # u = near + far, one of the two is zero: no mask, and no branch to be masked away
    far = torch.hardshrink(u, _NEAR)
    near = u - far
    nodes, weights = _RULE if near.is_cpu else _rule_on(near.dtype, near.device)
    over_nodes = near if near.dim() == 1 else near.unsqueeze(-2)
    integral = torch.div(weights, over_nodes + nodes).sum(-2)
    return (far - far.log1p()).add_(integral.mul_(near).mul_(near))


@functools.cache
def _rule_on(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    return _RULE[0].to(device, dtype), _RULE[1].to(device, dtype)


def common_batch(vectors: Sequence[Tensor], matrices: Sequence[Tensor]) -> torch.Size:
    """The batch shape of vectors and matrices, without a search where there is none."""
    if vectors[0].dim() == vectors[1].dim() == 1 and matrices[0].dim() == matrices[1].dim() == 2:
        return torch.Size()
    shapes = [x.shape[:-1] for x in vectors] + [x.shape[:-2] for x in matrices]
    return torch.broadcast_shapes(*shapes)
