"""The optimum of the ELBO by natural-gradient steps with a safeguard.

At the optimum the precision of a Gaussian q is the expected curvature of the negative log joint
density (Opper & Archambeau, 2009, The Variational Gaussian Approximation Revisited, eq. 16). A
step sets the precision to that and makes a Newton step of the mean. A step that would lower the
ELBO is made shorter, in natural parameters (Khan & Rue, 2023, The Bayesian Learning Rule, sec. 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ...messages import see
from ..covariances.covariance import Covariance, FullCovariance, LowRankCovariance
from ..covariances.precision import as_matrix
from ..priors.prior import GaussianPrior, NormalPrior
from .anderson import Anderson
from .local_model import LocalModel, local_model
from .newton_cg import newton_move
from .objective import Objective, Point

#: A step that is shorter than this and still lowers the ELBO ends the ascent.
SHORTEST = 1e-6
#: So many steps may be taken whose gain is less than the rounding error of the ELBO.
MOST_HIDDEN = 3
#: An optimum of the local model is this part of the tolerance accurate, or has so many steps.
MODEL_PART, MODEL_ITER = 0.1, 25
#: An ascent ends by the worst contraction of so many steps.
_RATIOS = 3
#: Up to this largest variance of the rows' predictors a step is nearly that of Newton.
SMALL_VARIANCE = 0.2

GAUSSIAN_PRIORS = NormalPrior, GaussianPrior
#: From a dense precision (or its diagonal), a root of its inverse (or None) and the covariance
#: before it to the covariance of a family.
Project = Callable[[Tensor, Tensor | None, Covariance], Covariance]


@dataclass(frozen=True)
class Step:
    """A step from one Gaussian to the next.

    Attributes:
        loc: the new mean.
        covariance: the new covariance.
        length: 1 for a whole step.
        gain_of_loc: the increase of the ELBO that a quadratic model promises of a whole step of
            the mean, nats.
        gain_of_covariance: that of the covariance.
    """

    loc: Tensor
    covariance: Covariance
    length: float
    gain_of_loc: float
    gain_of_covariance: float

    @property
    def gain(self) -> float:
        """The sum of both; near the optimum it is the distance to it, nats."""
        return self.gain_of_loc + self.gain_of_covariance


@dataclass(frozen=True)
class Ascent:
    """Where an ascent ended.

    Attributes:
        last: the last point at which the ELBO was computed.
        step: the step from there, whose end is the result.
        trace: the ELBO after each accepted step, nats; it never decreases.
        num_passes: how often the rows were read.
        converged: whether the result is closer to the optimum than the tolerance.
    """

    last: Point
    step: Step
    trace: tuple[float, ...]
    num_passes: int
    converged: bool


def ascend(
    objective: Objective,
    loc: Tensor,
    covariance: Covariance,
    project: Project,
    *,
    tol: float,
    max_iter: int,
) -> Ascent:
    """Return the optimum of the ELBO, as far as ``tol`` nats from it.

    Args:
        objective: the ELBO.
        loc: where to start, shape ``(D + 1,)``.
        covariance: where to start.
        project: from a precision to a covariance of the family.
        tol: nats.
        max_iter: the largest number of passes over the rows.
    """
    point = objective.at(loc, covariance)
    trace, gains, passes = [point.elbo], list[float](), 1
    length, is_stuck, num_hidden, anderson = 1.0, False, 0, Anderson()
    while True:
        step = step_from(objective, point, project, length)
        is_exact = isinstance(objective.prior, GAUSSIAN_PRIORS)
        if not is_exact and _has_model(objective, point, step):
            step, is_exact = _with_exact_prior(objective, point, step, project, tol)
        gains.append(step.gain if step.length == 1.0 else math.inf)
        contraction = max(_ratios(gains), default=math.inf)
        converged = _remaining(point, step, contraction, is_exact) <= tol
        # Where rounding ends an ascent, there are no steps left whose lengths could tell more.
        converged = converged or (is_stuck and step.gain <= tol)
        if converged or is_stuck or passes >= max_iter:
            return Ascent(point, step, tuple(trace), passes, converged)
        combined = _combined(anderson, point, step, project)
        loc, covariance = combined or (step.loc, step.covariance)
        new = objective.at(loc, covariance)
        passes += 1
        rounding = _rounding(objective, point)
        is_hidden = abs(step.gain) <= rounding and new.elbo >= point.elbo - rounding
        if new.elbo >= point.elbo or (is_hidden and num_hidden < MOST_HIDDEN):
            point, length = new, min(1.0, 2.0 * step.length)
            num_hidden += is_hidden
            if point.elbo >= trace[-1]:
                trace.append(point.elbo)
            continue
        gains.pop()
        anderson.forget()
        if combined is None:
            length = 0.5 * step.length
            is_stuck = is_hidden or length < SHORTEST


def _has_model(objective: Objective, point: Point, step: Step) -> bool:
    """Return whether a whole step can be that of the local model; a model itself has none.

    Each step of a covariance of low rank is a search: those of the model would take longer than
    the passes over the rows that they spare.
    """
    if isinstance(objective, LocalModel) or isinstance(step.covariance, LowRankCovariance):
        return False
    return point.precision.dim() == 2 and step.length == 1.0


def _with_exact_prior(
    objective: Objective, point: Point, step: Step, project: Project, tol: float
) -> tuple[Step, bool]:
    """Return the step to the optimum of the local model, and whether it has arrived there.

    The curvature of a prior that is no Gaussian follows q, and the plain step takes it from before
    the step. In the model the prior is exact, without a pass over the rows.
    """
    found = ascend(
        local_model(objective, point),
        step.loc,
        step.covariance,
        project,
        tol=MODEL_PART * tol,
        max_iter=MODEL_ITER,
    )
    end = found.step
    move = end.loc - point.loc
    gain_of_loc = 0.5 * float(move @ found.last.precision @ move)
    gain = (found.last.elbo - point.elbo) / objective.beta + end.gain
    whole = Step(end.loc, end.covariance, 1.0, gain_of_loc, max(gain - gain_of_loc, 0.0))
    return whole, found.converged


def _combined(
    anderson: Anderson, point: Point, step: Step, project: Project
) -> tuple[Tensor, Covariance] | None:
    """Return where the combination of the last steps ends, or None for the plain step."""
    if step.length < 1.0 or isinstance(step.covariance, LowRankCovariance):
        anderson.forget()  # a combination of precisions of low rank is none
        return None
    before, after = point.covariance.precision, step.covariance.precision
    if after.dim() == 2:
        before = as_matrix(before)
    anderson.add(point.loc, step.loc - point.loc, before, after)
    root = inverse_root(after) if after.dim() == 2 else None
    combined = anderson.combined(root)
    if combined is None:
        return None
    loc, precision = combined
    root = inverse_root(precision) if precision.dim() == 2 else None
    if root is None and (precision.dim() == 2 or not bool((precision > 0).all())):
        return None
    return loc, project(precision, root, step.covariance)


def _remaining(point: Point, step: Step, contraction: float, is_exact: bool) -> float:
    """Return how far from the optimum a step ends, nats.

    A step sets the precision that belongs to the mean before it, and the mean that belongs to the
    covariance before it. If the predictors of the rows change by d, their curvatures change by the
    part |d| at most (for a logit, probit or log link). A relative change of precisions by e costs
    e^2 / 4 nats a coefficient, and one of the variances v enters the slopes by v e / 2: together
    the distance shrinks to v / 2 times its value. Here v is the largest variance, since all that
    is known of a coefficient may come from a few rows; d^2 is at most 2 v times the gain of the
    mean (Cauchy and Schwarz). Of the covariance the changes of its diagonal count, since those of
    the correlations cancel in the sum over rows.

    Where v is not small, where covariances lack the correlations of rows, and where the step
    knows the curvature of the prior before it alone, the last steps tell how the distance shrinks.
    The first ones shrink it more than later ones: what is left counts as no less than twice the
    gain. A gain may be negative, where rounding makes a precision indefinite.
    """
    is_full = isinstance(step.covariance, FullCovariance)
    if is_exact and is_full and step.length == 1.0:
        ratio = point.covariance.marginal_scale / step.covariance.marginal_scale
        variance = point.largest_variance / min(float(ratio.min()), 1.0) ** 2
        variance += 2.0 * step.gain_of_loc * variance
        if variance < SMALL_VARIANCE:
            of_covariance = 0.25 * float((ratio.square() - 1.0).square().sum())
            return 0.5 * variance * (step.gain_of_loc + of_covariance)
    if contraction < 1.0:
        return 2.0 * abs(step.gain) * max(contraction / (1.0 - contraction), 1.0)
    return 100.0 * abs(step.gain)


def _ratios(gains: Sequence[float]) -> list[float]:
    """Return the last ratios of gains, inf where a step was no whole one.

    A step that combines others may gain much less than the one before it by chance: the last ratio
    alone would end an ascent too early, by up to sixty times the tolerance.
    """
    last = gains[-_RATIOS - 1 :]
    return [abs(b / a) if 0.0 != a < math.inf else math.inf for a, b in pairwise(last)]


def _rounding(objective: Objective, point: Point) -> float:
    """Return the size of the ELBO's rounding error.

    Rows that are the same have the same error: it grows like their number.
    """
    return torch.finfo(objective.rows.dtype).eps * abs(point.expected_log_likelihood)


def step_from(objective: Objective, point: Point, project: Project, length: float) -> Step:
    """Return the step from a point; it is shortened until its precision is positive definite."""
    if point.precision.dim() == 1:
        return _diagonal_step(objective, point, project, length)
    if not bool(torch.isfinite(point.precision).all()):
        raise ValueError(
            "The ELBO is not finite where the fit starts: expected rates or squares of features "
            "overflow. Standardise the features, or leave out columns with far outliers."
            + see("ill-conditioned-fit")
        )
    while True:
        precision = _blend(point, length)
        root = inverse_root(precision)
        if root is not None:
            break
        length *= 0.5
        if length < SHORTEST:
            raise ValueError(
                "The precision of the posterior is not positive definite in float64: are "
                "columns multiples of one another, with values far above 1? Scale or drop them."
                + see("ill-conditioned-fit")
            )
    move = root @ (root.mT @ point.gradient)
    covariance = project(precision, root, point.covariance)
    gains = 0.5 * float(point.gradient @ move), _gain(point, precision, covariance)
    return Step(point.loc + length * move, covariance, length, *gains)


def _gain(point: Point, precision: Tensor, covariance: Covariance) -> float:
    """Return what a new covariance adds to the ELBO, if the precision stays."""
    old = point.covariance
    traces = old.trace_with(precision) - covariance.trace_with(precision)
    return 0.5 * float(traces + covariance.log_det - old.log_det)


def _blend(point: Point, length: float) -> Tensor:
    """Return the precision of a step of that length."""
    if length == 1.0:
        return point.precision
    old = point.covariance.precision
    if point.precision.dim() == 2:
        old = as_matrix(old)
    return torch.lerp(old, point.precision, length)


def inverse_root(precision: Tensor) -> Tensor | None:
    """Return the lower Cholesky factor of the inverse, or None if there is none.

    The Cholesky factor of the matrix in reversed order has an inverse whose transpose, in reversed
    order again, is that factor: the inverse itself is never formed.
    """
    factor, failed = torch.linalg.cholesky_ex(precision.flip(0, 1))
    if failed:
        return None
    identity = torch.eye(len(precision), dtype=precision.dtype)
    return torch.linalg.solve_triangular(factor, identity, upper=False).mT.flip(0, 1).contiguous()


def _diagonal_step(objective: Objective, point: Point, project: Project, length: float) -> Step:
    """Return the step where only the precision's diagonal is known."""
    precision = _blend(point, length)
    covariance = project(precision, None, point.covariance)
    move = newton_move(objective, point)
    gains = 0.5 * float(point.gradient @ move), _gain(point, precision, covariance)
    return Step(point.loc + length * move, covariance, length, *gains)
