r"""How means and covariances of a full posterior move: its Hessian's inverse times a vector.

The Hessian in means and covariances has about D^4 / 4 entries; a product with it takes one pass.
In the coordinates ``u``, ``T`` of

    dm = L u,    dS = sqrt(2) L T L',    S = L L',

the ELBO's entropy contributes the identity, and conjugate gradients need few products. Several
right-hand sides share the passes: an unknown is a tensor of shape ``(K, D + 1, D + 2)``, whose
first column is ``u`` and whose others are ``T``.

Reference: Hestenes and Stiefel (1952), Methods of conjugate gradients for solving linear systems.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...messages import see
from ..covariances.covariance import FullCovariance
from ..covariances.precision import as_matrix
from ..optimum.objective import Objective
from ..passes.distributed import sum_of_chunks
from ..priors.prior import Prior, PriorTerms
from .linear_response import NO_MAXIMUM, STEP
from .row_derivatives import dense_rows, row_derivatives

ROOT_TWO = math.sqrt(2.0)
#: The residual of a solution over that of zero.
TOLERANCE = 1e-8
#: Products with the Hessian, a pass over the data each.
MOST_PRODUCTS = 500


def full_response(
    objective: Objective,
    loc: Tensor,
    covariance: FullCovariance,
    by_loc: Tensor,
    by_covariance: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return how means and covariances move when terms are added to the ELBO.

    Args:
        objective: the ELBO.
        loc: the posterior mean, shape ``(D + 1,)``, the bias first.
        covariance: the posterior covariance.
        by_loc: the added terms' gradients in the means, shape ``(K, D + 1)``.
        by_covariance: their symmetric gradients in the covariance, ``(K, D + 1, D + 1)``.

    Returns:
        Changes of the means, ``(K, D + 1)``, and of the covariance, ``(K, D + 1, D + 1)``.

    Raises:
        ValueError: the ELBO has no strict maximum there, or the passes were too few.
    """
    tril = covariance.scale_tril
    right = _pack(by_loc @ tril, ROOT_TWO * tril.mT @ by_covariance @ tril)
    shift, spread = _unpack(_solve(objective, loc, tril, right))
    return shift @ tril.mT, ROOT_TWO * tril @ spread @ tril.mT


def _pack(shift: Tensor, spread: Tensor) -> Tensor:
    return torch.cat([shift.unsqueeze(-1), spread], dim=-1)


def _unpack(both: Tensor) -> tuple[Tensor, Tensor]:
    return both[..., 0], both[..., 1:]


def _solve(objective: Objective, loc: Tensor, tril: Tensor, right: Tensor) -> Tensor:
    """Solve by conjugate gradients, each right-hand side with steps of its own."""

    def dot(left: Tensor, other: Tensor) -> Tensor:
        return (left * other).sum((-1, -2), keepdim=True)

    solution, residual = torch.zeros_like(right), right.clone()
    direction, square = residual.clone(), dot(residual, residual)
    goal = TOLERANCE**2 * square
    for _ in range(MOST_PRODUCTS):
        open_ = square > goal
        if not open_.any():
            return solution
        product = minus_hessian_times(objective, loc, tril, direction)
        bend = dot(direction, product)
        if not (bend[open_] > 0.0).all():
            raise ValueError(NO_MAXIMUM + see("ill-conditioned-fit"))
        rate = torch.where(open_, square / bend, 0.0)
        solution += rate * direction
        residual -= rate * product
        square, before = dot(residual, residual), square
        direction = residual + torch.where(open_, square / before, 0.0) * direction
    raise ValueError(
        f"The sensitivities were not found in {MOST_PRODUCTS} passes over the data: columns are "
        "almost collinear, and a narrower prior helps." + see("ill-conditioned-fit")
    )


def minus_hessian_times(
    objective: Objective, loc: Tensor, tril: Tensor, direction: Tensor
) -> Tensor:
    """Return the product of minus the ELBO's Hessian and each direction, in one pass."""

    def of_chunk(index: int) -> Tensor:
        chunk = objective.rows.chunk(index)
        rows = dense_rows(chunk)
        mean, rows = rows @ loc, rows @ tril
        scale = torch.linalg.vector_norm(rows, dim=-1)
        return _rows_times(
            rows, row_derivatives(objective.likelihood, chunk, mean, scale), direction
        )

    of_rows = sum_of_chunks(objective.rows.num_chunks, of_chunk)
    of_prior = torch.stack([_prior_times(objective.prior, loc, tril, one) for one in direction])
    entropy = direction.clone()
    entropy[..., 0] = 0.0
    return of_rows + objective.beta * (entropy - of_prior)


def _rows_times(
    rows: Tensor, derivatives: tuple[Tensor, Tensor, Tensor], direction: Tensor
) -> Tensor:
    """The product of some rows' part; the rows are those of ``Z L``."""
    curvature, third, fourth = (derivative.unsqueeze(-1) for derivative in derivatives)
    shift, spread = _unpack(direction)
    # How means and variances of the rows' predictors move, shape (n, K).
    mean = rows @ shift.mT
    variance = ROOT_TWO * torch.stack([((rows @ one) * rows).sum(-1) for one in spread], dim=-1)
    slope_change = 0.5 * third * variance - curvature * mean
    curvature_change = -third * mean - 0.5 * fourth * variance
    gram = torch.stack([rows.mT @ (rows * one.unsqueeze(-1)) for one in curvature_change.mT])
    return _pack(-slope_change.mT @ rows, gram / ROOT_TWO)


def _prior_times(prior: Prior, loc: Tensor, tril: Tensor, direction: Tensor) -> Tensor:
    """The product of the Hessian of the expected log prior and one direction, by differences."""
    shift, spread = _unpack(direction)
    step = STEP / float(direction.abs().max())

    def moved(by: float) -> PriorTerms:
        inner = torch.eye(len(shift), dtype=shift.dtype) + by * ROOT_TWO * spread
        covariance = FullCovariance(tril @ torch.linalg.cholesky(inner))
        return prior.expected(loc + by * tril @ shift, covariance)

    ahead, behind = moved(step), moved(-step)
    gradient = (ahead.gradient - behind.gradient) / (2.0 * step)
    precision = (ahead.precision - behind.precision) / (2.0 * step)
    precision = as_matrix(precision)
    return _pack(gradient @ tril, -tril.mT @ precision @ tril / ROOT_TWO)
