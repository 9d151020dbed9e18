"""Renyi's divergence of multivariate normals, dense or products of Normals."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent, LowRankMultivariateNormal, MultivariateNormal, Normal

from ...numerics.dtypes import in_float64
from ...numerics.special.alpha_divergences import log_gap
from ...registry.reduction import canonicalise
from ...registry.renyi import renyi_formula
from ...registry.subclasses import class_of
from .factors import diagonal, solve_lower

#: Two covariances agree in a direction if their ratio is 1 up to this.
_ROUNDING = 1e-13


class _SumOfLogGaps(torch.autograd.Function):
    """The sum of `log_gap` over the eigenvalues v of a symmetric matrix M.

    The eigenvectors, which have no derivative where two eigenvalues meet, as they do for M = 0,
    are not needed: with b = 1 - a the derivative by M is a (I + b M)^-1 M (I + M)^-1. Where v is
    large, or has rounded to -1, the sum is that of log(1 + b v)/b, less the log determinant.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, log_det: Tensor, alpha: float) -> Tensor:
        v = torch.linalg.eigvalsh(matrix)
        close = (v.abs() < 0.5).all(-1)
        ctx.save_for_backward(matrix, close)
        ctx.alpha, ctx.shape = alpha, log_det.shape
        near = log_gap(torch.where(close.unsqueeze(-1), v, 0.0), alpha).sum(-1)
        far = torch.log1p((1 - alpha) * v).sum(-1) / (1 - alpha) - log_det
        return torch.where(close, near, far)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        matrix, close = ctx.saved_tensors
        alpha, eye = ctx.alpha, torch.eye(matrix.shape[-1]).to(matrix)
        inner = torch.where(close[..., None, None], matrix, 0.0)
        middle = alpha * torch.linalg.solve(eye + inner, inner, left=False)
        right = torch.where(close[..., None, None], middle, eye)
        slope = torch.linalg.solve(eye + (1 - alpha) * matrix, right)
        by_log_det = torch.where(close, 0.0, -grads[0])
        return grads[0][..., None, None] * slope, by_log_det.sum_to_size(ctx.shape), None


def _factor(distribution: Any) -> tuple[Tensor, Tensor] | None:
    """Mean and Cholesky factor of a multivariate normal or of a product of Normals."""
    if not isinstance(distribution, Independent):
        return in_float64(distribution.loc), in_float64(distribution.scale_tril)
    base: Any = canonicalise(distribution.base_dist)
    if distribution.reinterpreted_batch_ndims != 1 or class_of(base) is not Normal:
        return None
    loc, scale = (in_float64(x).expand(base.batch_shape) for x in (base.loc, base.scale))
    return loc, torch.diag_embed(scale)


def _renyi(p: Any, q: Any, alpha: float) -> Tensor | None:
    """Renyi's divergence of two multivariate normals, however they are written."""
    factors = _factor(p), _factor(q)
    if factors[0] is None or factors[1] is None:
        return None
    return renyi_of_factors(*factors[0], *factors[1], alpha)


def renyi_of_factors(
    p_loc: Tensor, p_tril: Tensor, q_loc: Tensor, q_tril: Tensor, alpha: float
) -> Tensor:
    r"""Renyi's divergence of N(m_p, S_p) and N(m_q, L L').

    With M = L^-1 S_p L^-T - I, y = L^-1 (m_p - m_q) and b = 1 - a it is

        [sum_i g(v_i) + a y' (I + b M)^-1 y] / 2,   g(v) = log(1 + b v) / b - log(1 + v)

    over the eigenvalues v of M, +inf where some 1 + b v <= 0. M is computed from the difference
    N = L^-1 (L_p - L) as N + N' + N N'.

    Reference: Gil, Alajaji & Linder (2013), table 2; difference form derived here.
    """
    n = solve_lower(q_tril, p_tril - q_tril)
    y = solve_lower(q_tril, (p_loc - q_loc).unsqueeze(-1))
    matrix = n + n.mT + n @ n.mT
    log_det = 2 * torch.log(diagonal(p_tril) / diagonal(q_tril)).sum(-1)
    if alpha == 0.0:  # both have mass everywhere
        return 0.0 * (matrix.sum((-2, -1)) + y.sum((-2, -1)))
    if alpha == math.inf:
        return _greatest_log_ratio(matrix, y, log_det)
    eye = torch.eye(matrix.shape[-1]).to(matrix)
    lowest = 1 + (1 - alpha) * torch.linalg.eigvalsh(matrix.detach())
    finite = ~(lowest <= 0).any(-1)
    matrix = torch.where(finite[..., None, None], matrix, 0.0)
    square = (y * torch.linalg.solve(eye + (1 - alpha) * matrix, y)).sum((-2, -1))
    value = _SumOfLogGaps.apply(matrix, log_det, alpha) + alpha * square
    return torch.where(finite, 0.5 * value, math.inf)


def _greatest_log_ratio(matrix: Tensor, y: Tensor, log_det: Tensor) -> Tensor:
    """The supremum of log p/q: [y' (-M)^-1 y - log det(I + M)] / 2, +inf unless M is negative.

    In a direction that both have in common (v = 0, up to rounding) y has to be 0.
    """
    v, directions = torch.linalg.eigh(matrix.detach())
    across = (directions.mT @ y.detach()).squeeze(-1)
    common = v.abs() < _ROUNDING
    moved = common & (across.abs() > _ROUNDING * (1 + y.detach().abs().amax((-2, -1))[..., None]))
    finite = ~((v > 0) & ~common | moved).any(-1)
    shared = directions @ (common.to(v).unsqueeze(-1) * directions.mT)
    eye = torch.eye(v.shape[-1]).to(v)
    narrower = torch.where(finite[..., None, None], shared - matrix, eye)
    square = (y * torch.linalg.solve(narrower, y)).sum((-2, -1))
    return torch.where(finite, 0.5 * (square - log_det), math.inf)


_DENSE = (MultivariateNormal, LowRankMultivariateNormal)
for _p, _q in itertools.product((*_DENSE, Independent), repeat=2):
    if _p in _DENSE or _q in _DENSE:  # two products are a sum over the coordinates
        renyi_formula(_p, _q)(_renyi)
