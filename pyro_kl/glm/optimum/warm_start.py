"""Where a fit of many rows starts: the optimum of a sample, corrected by gradients of all rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..covariances.covariance import Covariance, DiagonalCovariance, FullCovariance
from ..covariances.precision import as_diagonal
from ..passes.sweep import gradient_at_variance, is_dense, sweep
from .fixed_point import Project, ascend, inverse_root
from .objective import Objective, Point

#: The last sample is this part of the rows, but has so many rows for each coefficient. It is at
#: most so large a part: a larger one costs more than it spares.
PART, ROWS_EACH, LARGEST = 1 / 16, 16, 1 / 8
#: It needs no more rows for each coefficient.
ENOUGH_EACH = 4096
#: A last sample of fewer rows spares nothing, and may have no row with a rare feature.
LEAST_ROWS = 1024
#: A sample whose optimum is so many times farther away than it should be is not used.
UNLIKELY = 20.0
#: From a sample to the next the number of rows grows so much.
GROWTH = 8
#: Gradients of all rows are taken until the distance is this many nats, or for so many passes.
CLOSE, MOST_GRADIENTS = 0.01, 6


@dataclass(frozen=True)
class Start:
    """Where an ascent starts.

    Attributes:
        loc: shape ``(D + 1,)``, the bias first.
        covariance: of the same coefficients.
    """

    loc: Tensor
    covariance: Covariance


def first_start(objective: Objective, loc: Tensor, project: Project) -> Start:
    """Return a start from the curvature that the rows have at ``loc``.

    A Newton step of a likelihood that saturates is too short, where the coefficients are large:
    the best point on its line is found by gradients of the rows alone.
    """
    rows, likelihood, beta = objective.rows, objective.likelihood, objective.beta
    nothing = DiagonalCovariance(torch.zeros_like(loc))
    dense = is_dense(rows)
    sums = sweep(rows, likelihood, loc, nothing, dense)
    diagonal = sums.precision.diagonal() if dense else sums.precision
    sd = (diagonal / beta).rsqrt()
    sd = torch.where(sd.isfinite(), sd, torch.ones_like(sd))
    terms = objective.prior.expected(loc, DiagonalCovariance(sd))
    of_prior = as_diagonal(terms.precision)
    precision = diagonal / beta + of_prior.clamp(min=0.0)
    start = Start(loc, DiagonalCovariance(precision.rsqrt()))
    if not dense:
        return start
    full = sums.precision / beta
    full.diagonal().add_(of_prior.clamp(min=0.0))
    root = inverse_root(full)
    if root is None:
        return start
    move = root @ (root.mT @ (sums.gradient / beta + terms.gradient))

    def slope(there: Tensor, of_rows: Tensor) -> float:
        of_prior = objective.prior.expected(there, start.covariance).gradient
        return float(move @ (of_rows / beta + of_prior))

    def slope_at(length: float) -> float:
        there = loc + length * move
        return slope(there, gradient_at_variance(rows, likelihood, there, 0.0)[0])

    length = _best_length(slope_at, first=slope(loc, sums.gradient))
    return Start(loc + length * move, project(full, root, start.covariance))


def _best_length(slope: Callable[[float], float], first: float) -> float:
    """Return about where a falling slope is 0, by secants that never go below 0.

    Args:
        slope: from a length to the slope there.
        first: the slope at 0.
    """
    before, here = 0.0, 1.0
    value_before = first
    for _ in range(MOST_GRADIENTS):
        value = slope(here)
        if not abs(value) > 0.02 * abs(first):
            break
        if here == before or not math.isfinite(value):
            return 0.0
        steepness = (value_before - value) / (here - before)
        if not steepness > 0.0:
            return 0.0
        before, value_before = here, value
        here = min(max(here + value / steepness, 0.5 * here), 4.0 * here)
    return here


def warm_start(objective: Objective, loc: Tensor, project: Project) -> Start:
    """Return the optimum of growing samples, corrected by gradients of all rows."""
    start, point, rows = None, None, objective.rows
    for size in _sizes(rows.num_rows, len(loc)):
        sample = rows.sample(size)
        share = sample.num_rows / rows.num_rows
        on_sample = replace(objective, rows=sample)
        start = start or first_start(on_sample, loc, project)
        tol = 0.05 * len(loc) / share
        ascent = ascend(on_sample, start.loc, start.covariance, project, tol=tol, max_iter=30)
        step, point = ascent.step, ascent.last
        start = Start(step.loc, _unbiased(step.covariance, sample.num_rows))
    if start is None or point is None:
        return first_start(objective, loc, project)
    if rows.is_in_memory and is_dense(rows):
        corrected = _corrected(objective, start, point, share)
        return corrected or first_start(objective, loc, project)
    return start


def _sizes(num_rows: int, num_coefficients: int) -> list[int]:
    """Return the numbers of rows of the samples, from the smallest on."""
    size = max(int(PART * num_rows), ROWS_EACH * num_coefficients)
    size = min(size, ENOUGH_EACH * num_coefficients)
    sizes: list[int] = []
    if size < LEAST_ROWS:
        return sizes
    while ROWS_EACH * num_coefficients <= size <= LARGEST * num_rows:
        sizes.insert(0, size)
        size //= GROWTH
    return sizes


def _corrected(objective: Objective, start: Start, on_sample: Point, share: float) -> Start | None:
    """Return a start whose mean is corrected by Newton steps with the sample's precision.

    The optimum of a sample is on average D / (2 share) nats below that of all rows. If it is much
    lower, the sample tells nothing of a coefficient, and None is returned.
    """
    root = inverse_root(on_sample.precision)
    if root is None:
        return start
    variance = on_sample.spread(start.covariance) / on_sample.curvature
    loc = best = verified = start.loc
    smallest, curvature = math.inf, on_sample.curvature
    last: tuple[Tensor, Tensor, Tensor] | None = None
    for _ in range(MOST_GRADIENTS):
        of_rows, of_all = gradient_at_variance(objective.rows, objective.likelihood, loc, variance)
        of_prior = objective.prior.expected(loc, start.covariance).gradient
        gradient = of_rows / objective.beta + of_prior
        move = root @ (root.mT @ gradient)
        gain = 0.5 * float(gradient @ move)
        if not gain < UNLIKELY * len(loc) / share:
            return None
        if not gain < 0.5 * smallest:
            best = verified  # the last move was too long
            break
        verified, end = loc, loc + move
        best = end
        smallest, curvature = gain, of_all / objective.beta
        if gain <= CLOSE:
            break
        if last is not None:
            # The combination of the last two steps whose residual is the shortest, as in Anderson.
            gradient_before, move_before, end_before = last
            change = gradient - gradient_before
            part = (move @ change) / ((move - move_before) @ change)
            best = end + part * (end_before - end)
        last, loc = (gradient, move, end), best
    # The sample's mean is too large, for it fits the sample: its curvatures are too small.
    return Start(best, start.covariance.times(on_sample.curvature / curvature))


def _unbiased(covariance: Covariance, num_rows: int) -> Covariance:
    """Return a covariance without the bias of a sample.

    The inverse of a precision that is summed over n rows is on average larger by n / (n - D - 1)
    than that of the mean precision (Anderson, 2003, An Introduction to Multivariate Statistical
    Analysis, lemma 7.7.1, for Normal rows).
    """
    if not isinstance(covariance, FullCovariance):
        return covariance
    return covariance.times(1.0 - len(covariance.scale_tril) / num_rows)
