"""The Newton step of the mean by conjugate gradients, where the precision is too large to keep."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..passes.design import Design
from ..passes.rows import Chunk
from ..passes.sweep import expectation, over_chunks
from .objective import Objective, Point

#: The residual of the linear equation, relative to the gradient. The next step corrects the rest.
RESIDUAL = 1e-3
MOST_PRODUCTS = 200


def newton_move(objective: Objective, point: Point) -> Tensor:
    """Return the solution of ``precision move = gradient``, shape ``(D + 1,)``.

    The products with the precision are passes over the rows, with each row's curvature kept. The
    diagonal is the preconditioner.

    Reference: Nocedal & Wright (2006), Numerical Optimization, algorithms 5.3 and 7.1.
    """
    curvatures: dict[int, Tensor] = {}

    def curvature(index: int, chunk: Chunk, design: Design) -> Tensor:
        if index not in curvatures:
            mean, scale = design.predictor(point.loc, point.covariance)
            row = expectation(chunk, objective.likelihood, mean, scale)
            curvatures[index] = row.curvature
        return curvatures[index]

    def diagonal(index: int, chunk: Chunk, design: Design) -> Tensor:
        return design.precision_diagonal(curvature(index, chunk, design))

    of_prior = point.precision - over_chunks(objective.rows, diagonal) / objective.beta

    def times(vector: Tensor) -> Tensor:
        def product(index: int, chunk: Chunk, design: Design) -> Tensor:
            return design.gradient(curvature(index, chunk, design) * design.mean(vector))

        return over_chunks(objective.rows, product) / objective.beta + of_prior * vector

    return _solve(times, point.gradient, point.precision)


def _solve(times: Callable[[Tensor], Tensor], right: Tensor, preconditioner: Tensor) -> Tensor:
    solution, residual = torch.zeros_like(right), right.clone()
    direction = scaled = residual / preconditioner
    size = first = residual @ scaled
    for _ in range(MOST_PRODUCTS):
        if size <= RESIDUAL**2 * first:
            break
        product = times(direction)
        length = size / (direction @ product)
        solution = solution + length * direction
        residual = residual - length * product
        scaled = residual / preconditioner
        size, before = residual @ scaled, size
        direction = scaled + (size / before) * direction
    return solution
