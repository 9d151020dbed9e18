"""A fit: the optimum of the ELBO over the Gaussians of one family of covariances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...messages import see
from ...registry.warnings import warn
from ..covariances.covariance import (
    Covariance,
    DiagonalCovariance,
    FullCovariance,
    LowRankCovariance,
)
from ..covariances.low_rank import project_low_rank
from ..covariances.precision import as_diagonal
from ..passes.sweep import DENSE
from ..priors.prior import Prior
from ..priors.scale_equation import ScaledPrior
from .fixed_point import Ascent, Project, ascend
from .learn_scale import learn_scales, warn_of_limits
from .objective import Objective
from .warm_start import Start, warm_start

COVARIANCES: dict[str, type[Covariance]] = {
    "full": FullCovariance,
    "diagonal": DiagonalCovariance,
    "low_rank": LowRankCovariance,
}


#: Up to so many rows the ELBO is computed at the result.
FEW_ROWS = 20_000


@dataclass(frozen=True)
class Fitted:
    """The posterior that a fit has found.

    Attributes:
        loc: its mean, shape ``(D + 1,)``, the bias first.
        covariance: of the same coefficients.
        elbo: nats.
        expected_log_likelihood: E_q log p(targets | coefficients), nats.
        kl: KL(q || prior), nats.
        trace: the ELBO after each accepted step over all rows, nats; it never decreases.
        num_passes: how often all rows were read, without samples of them.
        converged: whether the ELBO is closer to its optimum than the tolerance.
        prior: with its learnt scales.
    """

    loc: Tensor
    covariance: Covariance
    elbo: float
    expected_log_likelihood: float
    kl: float
    trace: tuple[float, ...]
    num_passes: int
    converged: bool
    prior: Prior


def projection(covariance: str, rank: int) -> Project:
    """Return the map from a precision to a covariance of the family.

    It minimises ``tr(precision S) - log det S`` over the family.
    """

    def full(precision: Tensor, root: Tensor | None, before: Covariance) -> Covariance:
        return FullCovariance(_dense(root))

    def diagonal(precision: Tensor, root: Tensor | None, before: Covariance) -> Covariance:
        return DiagonalCovariance(as_diagonal(precision).rsqrt())

    def low_rank(precision: Tensor, root: Tensor | None, before: Covariance) -> Covariance:
        _dense(root)
        # The problem has several minima: the search starts from the last one and from none.
        starts = [None, *([before] if isinstance(before, LowRankCovariance) else [])]
        found = [project_low_rank(precision, rank, start) for start in starts]
        return min(found, key=lambda s: float(s.trace_with(precision) - s.log_det))

    families = dict(zip(COVARIANCES, (full, diagonal, low_rank), strict=True))
    if covariance in families:
        return families[covariance]
    raise ValueError(
        f"covariance must be one of {', '.join(COVARIANCES)}, got {covariance!r}" + see("option")
    )


def _dense(root: Tensor | None) -> Tensor:
    if root is None:
        raise ValueError(
            f"A covariance with correlations needs dense features, fewer than {DENSE:,} of them; "
            "pass covariance='diagonal'." + see("covariance")
        )
    return root


def fit(
    objective: Objective,
    project: Project,
    *,
    loc: Tensor,
    covariance: Covariance | None = None,
    scaled: ScaledPrior | None = None,
    tol: float = 1e-4,
    max_iter: int = 100,
) -> Fitted:
    """Return the Gaussian of a family with the largest ELBO.

    Args:
        objective: the ELBO.
        project: from a precision to a covariance of the family, see `projection`.
        loc: where to start, shape ``(D + 1,)``.
        covariance: where to start; None for samples of the rows first.
        scaled: the objective's prior, if some of its scales are learnt.
        tol: how many nats the ELBO may be below its optimum.
        max_iter: the largest number of passes over the rows.

    Reference: Opper & Archambeau (2009), The Variational Gaussian Approximation Revisited.
    """
    with torch.no_grad():
        start = (
            warm_start(objective, loc, project) if covariance is None else Start(loc, covariance)
        )
        ascent = ascend(
            objective,
            start.loc,
            start.covariance,
            project,
            tol=tol / objective.beta,
            max_iter=max_iter,
        )
        if scaled is not None and scaled.labels:
            learnt = learn_scales(
                objective, scaled, ascent, project, tol=tol / objective.beta, max_iter=max_iter
            )
            objective, ascent = learnt.objective, learnt.ascent
            warn_of_limits(learnt)
        end = _evaluated(objective, ascent)
        kl = objective.kl(end.loc, end.covariance)
    if not ascent.converged:
        warn(
            f"The fit stopped after {ascent.num_passes} passes over the rows, at least "
            f"{objective.beta * ascent.step.gain:.2g} nats below its optimum (tol={tol:g}). Raise "
            "max_iter; where data are separable or columns collinear, a narrower prior helps."
            + see("fit-stopped")
        )
    return Fitted(
        end.loc,
        end.covariance,
        end.elbo,
        end.elbo + objective.beta * kl,
        kl,
        end.trace,
        end.num_passes,
        ascent.converged,
        objective.prior,
    )


class _End(NamedTuple):
    """Where a fit ends, and the ELBO there."""

    loc: Tensor
    covariance: Covariance
    elbo: float
    trace: tuple[float, ...]
    num_passes: int


def _evaluated(objective: Objective, ascent: Ascent) -> _End:
    """Return the end of the last step, with the ELBO that the rows have there if they are few.

    Where rows are many, the quadratic model of the step tells its gain to a few 1e-4 nats, and
    another pass would cost half of the fit.
    """
    step, last = ascent.step, ascent.last
    promised = last.elbo + objective.beta * step.gain
    if objective.rows.num_rows > FEW_ROWS:
        return _End(step.loc, step.covariance, promised, ascent.trace, ascent.num_passes)
    point = objective.at(step.loc, step.covariance)
    trace = ascent.trace
    if point.elbo >= last.elbo:
        last, trace = point, (*trace, point.elbo)
    return _End(last.loc, last.covariance, last.elbo, trace, ascent.num_passes + 1)
