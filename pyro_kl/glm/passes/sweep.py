"""One pass over rows: sums of value, gradient and curvature at a Gaussian posterior."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...likelihoods.likelihood import Expectation, Likelihood
from ..covariances.covariance import Covariance
from .checkpoint import ResumableRows
from .design import Design, Memory
from .distributed import sum_of_chunks
from .rows import Chunk, Rows
from .statistics import Statistics

#: Of this many coefficients at most is the precision kept as a matrix.
DENSE = 4096


def is_dense(rows: Rows) -> bool:
    """Whether a pass sums up the whole precision, not its diagonal alone."""
    return len(rows.names) < DENSE and not rows.is_sparse


def sweep(
    rows: Rows, likelihood: Likelihood, loc: Tensor, covariance: Covariance, is_dense: bool
) -> Statistics:
    """Return the statistics of all rows at Normal(loc, covariance).

    Args:
        rows: where the data are.
        likelihood: of a target given its linear predictor.
        loc: shape ``(D + 1,)``, the bias first.
        covariance: of the same coefficients.
        is_dense: whether the precision is a matrix, or its diagonal alone.
    """

    def of_chunk(index: int, chunk: Chunk, design: Design) -> Statistics:
        mean, scale = design.predictor(loc, covariance)
        used = scale if chunk.weight is None else scale * (chunk.weight > 0)
        largest = float(used.max()) ** 2
        row = expectation(chunk, likelihood, mean, scale)
        sums = design.precision if is_dense else design.precision_diagonal
        precision = sums(row.curvature)
        total = float(row.value.sum(dtype=torch.float64))
        return Statistics(total, design.gradient(row.slope), precision, largest)

    total = over_chunks(rows, of_chunk)
    if is_dense:
        upper = total.precision.triu()
        total.precision = upper + upper.triu(1).mT
    return total


def gradient_at_variance(
    rows: Rows, likelihood: Likelihood, loc: Tensor, variance: float
) -> tuple[Tensor, float]:
    """Return the gradient with respect to ``loc`` if every predictor had the same variance.

    The variances of the rows are half of the cost of a pass. Where rows are many, they are small
    and matter to second order; a gradient with their mean brings ``loc`` close to its optimum.

    Returns:
        The gradient, shape ``(D + 1,)``, and the sum of the rows' curvatures.
    """

    def of_chunk(index: int, chunk: Chunk, design: Design) -> Tensor:
        mean = design.mean(loc)
        row = expectation(chunk, likelihood, mean, torch.full_like(mean, variance**0.5))
        curvature = row.curvature.sum().reshape(1).double().cpu()
        return torch.cat([design.gradient(row.slope), curvature])

    total = over_chunks(rows, of_chunk)
    return total[:-1], float(total[-1])


def expectation(chunk: Chunk, likelihood: Likelihood, mean: Tensor, scale: Tensor) -> Expectation:
    """Return each row's expected log likelihood with its derivatives, times the row's weight."""
    row = likelihood.expected(chunk.target, mean, scale)
    if chunk.weight is None:
        return row
    weight = chunk.weight
    return Expectation(row.value * weight, row.slope * weight, row.curvature * weight)


def over_chunks(rows: Rows, of_chunk: Callable[[int, Chunk, Design], Any]) -> Any:
    """Return the sum over all chunks, in the order that does not depend on who computes which.

    Args:
        rows: where the chunks are.
        of_chunk: from the number of a chunk, its rows and their design to a value. It is called
            for the chunks of this rank, and not at all if a checkpoint has the sum.
    """
    memory = Memory()

    def value(index: int) -> Any:
        chunk = rows.chunk(index)
        return of_chunk(index, chunk, memory.design(chunk.features))

    add_up = rows.journal.sum_of_chunks if isinstance(rows, ResumableRows) else sum_of_chunks
    with _threads_for(rows):
        return add_up(rows.num_chunks, value)


@contextmanager
def _threads_for(rows: Rows) -> Iterator[None]:
    """One thread of torch where another one reads ahead: more would wait for one another.

    A fit of 5,000,000 x 30 from Parquet on two cores takes 17 s with two threads, 5 s with one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(before if rows.is_in_memory else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
