"""Cholesky factors: triangular solves, and the divergence of their diagonals."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...numerics.dtypes import in_float64, promoted
from ...numerics.quadrature.fixed import panel
from ...numerics.special.divergences import itakura_saito

# u - log(1 + u) = u^2 integral_0^1 dt / (1/t + u): for |u| < 0.1 five Gauss-Legendre nodes
_T, _W = panel(5)
_RULE = (1 / _T).unsqueeze(-1), _W.unsqueeze(-1)
_NEAR = 0.1
#: Up to this size float64 takes no longer than float32: the calls themselves take the time.
_SMALL = 32


def in_one_dtype(kernel: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """A formula of tensors, evaluated in float64; large float32 matrices stay in float32.

    A float32 solve costs half of one in float64, and in the difference form it loses no digit to
    cancellation. The sum over its diagonal is float64 in any case.
    """
    dtype = promoted(tensors)
    if dtype is torch.float64:
        return kernel(*[x if x.dtype is dtype else x.to(dtype) for x in tensors])
    if tensors[0].shape[-1] > _SMALL:
        return kernel(*[x.to(dtype) for x in tensors]).to(dtype)
    return kernel(*[in_float64(x) for x in tensors]).to(dtype)


def diagonal(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1)


def lower_part(matrix: Tensor) -> Tensor:
    """The lower triangle, written into the matrix itself where that needs no copy."""
    return matrix.tril_() if matrix.dim() == 2 else matrix.contiguous().tril_()


def cholesky(matrix: Tensor) -> Tensor:
    """The Cholesky factor; nan for a matrix with nan, for which torch refuses the whole batch."""
    known = matrix.isfinite().all(-1).all(-1)[..., None, None]
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return torch.where(known, torch.linalg.cholesky(torch.where(known, matrix, eye)), math.nan)


def row_norms(tril: Tensor) -> Tensor:
    """The norms of a lower triangular matrix's rows left of the diagonal, without the first row.

    In memory such a row follows the end of the row above it, which is zero: a strided view has
    both, and the matrix is read once and not copied.
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
    """The value's gradient in the dtype of the parameters, with a last dimension for vectors."""
    return (grad if grad.dtype is like.dtype else grad.to(like.dtype)).unsqueeze(-1)


def is_single(scale_tril: Tensor) -> bool:
    """Whether the whole batch has one factor."""
    return scale_tril.shape[:-2].numel() == 1


def solve_lower(scale_tril: Tensor, right: Tensor) -> Tensor:
    """L^-1 R. A factor that the batch of R shares is not copied along it."""
    if right.dim() == 2 or not is_single(scale_tril):
        return torch.linalg.solve_triangular(scale_tril, right, upper=False)
    d = right.shape[-2]
    rows_first = right.movedim(-2, 0)
    solved = torch.linalg.solve_triangular(
        scale_tril.reshape(d, d), rows_first.reshape(d, -1), upper=False
    )
    return solved.reshape(rows_first.shape).movedim(0, -2)


def room_for(scale_tril: Tensor, batch: torch.Size) -> Tensor:
    """Uninitialised memory for [y | N], laid out so that `solve_in_place` needs no copy."""
    d = scale_tril.shape[-1]
    if not batch:
        return scale_tril.new_empty((d, d + 1))
    if is_single(scale_tril):
        return scale_tril.new_empty((d, *batch, d + 1)).movedim(0, -2)
    return scale_tril.new_empty((*batch, d, d + 1))


def subtract_into(room: Tensor, x: Tensor, y: Tensor) -> None:
    """x - y, broadcast to the shape of `room` and written into it."""
    if x.shape == room.shape or y.shape == room.shape:
        torch.sub(x, y, out=room)
    else:
        room.copy_(x).sub_(y)


def solve_in_place(scale_tril: Tensor, right: Tensor, transposed: bool) -> None:
    """L^-1 R or L'^-1 R, written over R, whose memory `room_for` has laid out."""
    if right.dim() > 2 and is_single(scale_tril):
        # `view` raises where it would have to copy
        right = right.movedim(-2, 0).view(right.shape[-2], -1)
        scale_tril = scale_tril.reshape(scale_tril.shape[-2:])
    # X L' = R' instead of L X = R: LAPACK stores columns, torch rows
    triangle, room = scale_tril if transposed else scale_tril.mT, right.mT
    torch.linalg.solve_triangular(triangle, room, upper=not transposed, left=False, out=room)


def scale_divergence(p_scale: Tensor, q_scale: Tensor) -> Tensor:
    """s/sigma - 1 - log(s/sigma), which is KL(N(0, s) || N(0, sigma)) - (s/sigma - 1)^2 / 2."""
    return itakura_saito(in_float64(p_scale), in_float64(q_scale))


def without_first_order(u: Tensor, ratio: Tensor) -> Tensor:
    """u - log(1 + u), the value of `scale_divergence`, in few calls; not differentiable.

    The ratio 1 + u is given, since u has few of its digits left where it is next to -1.
    """
    if u.dtype is not torch.float64:
        u, ratio = in_float64(u), in_float64(ratio)
    # u = near + far, of which one is zero: both branches are added, and no mask is needed
    far = torch.hardshrink(u, _NEAR)
    near = u - far
    nodes, weights = _RULE if near.is_cpu else _rule_on(near.dtype, near.device)
    over_nodes = near if near.dim() == 1 else near.unsqueeze(-2)
    integral = torch.div(weights, over_nodes + nodes).sum(-2)
    log_far = torch.where(far == 0, 0.0, ratio.log())
    return (far - log_far).add_(integral.mul_(near).mul_(near))


@functools.cache
def _rule_on(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    return _RULE[0].to(device, dtype), _RULE[1].to(device, dtype)


def common_batch(vectors: Sequence[Tensor], matrices: Sequence[Tensor]) -> torch.Size:
    """The batch shape of vectors and matrices; without a batch it is found at once."""
    if vectors[0].dim() == vectors[1].dim() == 1 and matrices[0].dim() == matrices[1].dim() == 2:
        return torch.Size()
    shapes = [x.shape[:-1] for x in vectors] + [x.shape[:-2] for x in matrices]
    return torch.broadcast_shapes(*shapes)
