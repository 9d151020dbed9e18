"""The ELBO near a Gaussian, with the likelihood expanded there: it needs no pass over the rows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..covariances.covariance import Covariance
from ..covariances.precision import as_matrix
from .objective import Objective, Point, entropy


@dataclass(frozen=True, kw_only=True)
class LocalModel(Objective):
    """E_q log likelihood to second order in the mean and to first order in the covariance.

    At the centre the ELBO and its derivatives are the true ones. The prior is exact everywhere, so
    that the model tells what another prior would do.

    Attributes:
        centre: where the likelihood was computed, with a dense precision.
        gradient: of E_q log likelihood with respect to the mean, divided by beta.
        precision: minus its second derivative, divided by beta.
    """

    centre: Point
    gradient: Tensor
    precision: Tensor

    def at(self, loc: Tensor, covariance: Covariance) -> Point:
        """Return the ELBO of the model and its derivatives."""
        centre = self.centre
        away = loc - centre.loc
        pull = self.precision @ away
        spread = covariance.trace_with(self.precision)
        spread = spread - centre.covariance.trace_with(self.precision)
        change = float(self.gradient @ away - 0.5 * (away @ pull + spread))
        log_likelihood = centre.expected_log_likelihood + self.beta * change
        terms = self.prior.expected(loc, covariance)
        kl = -entropy(covariance, len(loc)) - terms.value
        return Point(
            loc,
            covariance,
            log_likelihood,
            kl,
            log_likelihood - self.beta * kl,
            self.gradient - pull + terms.gradient,
            self.precision + as_matrix(terms.precision),
            terms.precision,
            float(self.precision[0, 0]),
            0.0,  # the curvature of the model is the same everywhere
        )


def local_model(objective: Objective, centre: Point) -> LocalModel:
    """Return the model of an objective around a point of it, whose precision is dense."""
    of_prior = objective.prior.expected(centre.loc, centre.covariance).gradient
    return LocalModel(
        objective.rows,
        objective.likelihood,
        objective.prior,
        objective.beta,
        centre=centre,
        gradient=centre.gradient - of_prior,
        precision=centre.precision - as_matrix(centre.prior_precision),
    )
