"""What the formulas on Cholesky factors share: triangular solves and the diagonal's divergence."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..special import in_float64, itakura_saito

__all__ = [
    "carried",
    "diagonal",
    "scale_divergence",
    "solve_lower",
    "solve_upper",
    "squared_norm",
    "summed_to",
    "without_first_order",
]

# u - log(1 + u) = u^2 integral_0^1 t / (1 + t u) dt: for |u| < 0.1 five Gauss-Legendre nodes
_X, _W = np.polynomial.legendre.leggauss(5)
_NODES = torch.tensor(0.5 + 0.5 * _X)
_WEIGHTS = torch.tensor(0.5 * _W) * _NODES
_NEAR = 0.1
#: Up to this size float64 costs nothing beside the calls themselves.
_SMALL = 32


def carried(*tensors: Tensor) -> list[Tensor]:
    """The tensors in one dtype: float64 as everywhere, but large float32 matrices as they are.

    A solve of float32 factors costs half of one in float64, and in the difference form it loses
    no digit to cancellation; what is summed over its diagonal is float64 in any case.
    """
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    if dtype == torch.float64 or tensors[0].shape[-1] > _SMALL:
        return [x if x.dtype == dtype else x.to(dtype) for x in tensors]
    return [in_float64(x) for x in tensors]


def diagonal(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1)


def squared_norm(x: Tensor, dim: tuple[int, ...]) -> Tensor:
    """The sum of squares, without a copy of x."""
    return torch.linalg.vector_norm(x, dim=dim).square()


def summed_to(x: Tensor, like: Tensor) -> Tensor:
    """A gradient, summed over the dims along which `like` was broadcast."""
    return x if x.shape == like.shape else x.sum_to_size(like.shape)


def solve_lower(scale_tril: Tensor, right: Tensor) -> Tensor:
    """L^-1 R. A factor that the batch of R shares is not copied along it."""
    return _solve(scale_tril, right, transposed=False)


def solve_upper(scale_tril: Tensor, right: Tensor) -> Tensor:
    """L'^-1 R, likewise."""
    return _solve(scale_tril, right, transposed=True)


def _solve(scale_tril: Tensor, right: Tensor, transposed: bool) -> Tensor:
    triangle = scale_tril.mT if transposed else scale_tril
    if right.dim() == 2 or scale_tril.shape[:-2].numel() != 1:
        return torch.linalg.solve_triangular(triangle, right, upper=transposed)
    d, columns = right.shape[-2:]
    side_by_side = right.reshape(-1, d, columns).transpose(0, 1).reshape(d, -1)
    triangle = triangle.reshape(d, d)
    solved = torch.linalg.solve_triangular(triangle, side_by_side, upper=transposed)
    return solved.reshape(d, -1, columns).transpose(0, 1).reshape(right.shape)


def scale_divergence(p_scale: Tensor, q_scale: Tensor) -> Tensor:
    """KL(N(0, s) || N(0, sigma)) - (s/sigma - 1)^2 / 2 = s/sigma - 1 - log(s/sigma)."""
    return itakura_saito(in_float64(p_scale), in_float64(q_scale))


def without_first_order(u: Tensor, ratio: Tensor) -> Tensor:
    """The value of `scale_divergence`, u - log(ratio), ratio = 1 + u, in a third of the calls."""
    u, ratio = in_float64(u), in_float64(ratio)
    near = u.abs() < _NEAR
    nodes, weights = _NODES.to(u), _WEIGHTS.to(u)
    small = torch.where(near, u, 0.0)
    close = small.square() * ((small.unsqueeze(-1) * nodes + 1).reciprocal() @ weights)
    return torch.where(near, close, u - ratio.log())
