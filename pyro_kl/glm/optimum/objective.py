"""The ELBO of a generalised linear model at a Gaussian posterior, with its derivatives."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ...likelihoods.likelihood import Likelihood
from ..covariances.covariance import Covariance
from ..passes.rows import Rows
from ..passes.sweep import is_dense, sweep
from ..priors.prior import Prior

LOG_TWO_PI_E = math.log(2.0 * math.pi * math.e)


@dataclass(frozen=True)
class Point:
    """The ELBO at q = Normal(loc, covariance).

    Attributes:
        loc: shape ``(D + 1,)``, the bias first.
        covariance: of the same coefficients.
        expected_log_likelihood: E_q log p(targets | coefficients), nats.
        kl: KL(q || prior), nats.
        elbo: the first minus beta times the second.
        gradient: of the ELBO with respect to ``loc``, divided by beta.
        precision: -2 times the derivative of E_q log p(targets, coefficients) with respect to the
            covariance, divided by beta: a matrix, or its diagonal.
        prior_precision: the part of the prior in that.
        curvature: the sum of the rows' curvatures, divided by beta.
        largest_variance: of the rows' predictors.
    """

    loc: Tensor
    covariance: Covariance
    expected_log_likelihood: float
    kl: float
    elbo: float
    gradient: Tensor
    precision: Tensor
    prior_precision: Tensor
    curvature: float
    largest_variance: float

    def spread(self, covariance: Covariance) -> float:
        """Return the sum of the rows' variances under a covariance, times their curvatures."""
        traces = covariance.trace_with(self.precision) - covariance.trace_with(
            self.prior_precision
        )
        return max(float(traces), 0.0)


@dataclass(frozen=True)
class Objective:
    """ELBO = E_q[log likelihood] - beta KL(q || prior).

    Attributes:
        rows: where the data are.
        likelihood: of a target given its linear predictor.
        prior: of the coefficients.
        beta: the weight of the KL.
    """

    rows: Rows
    likelihood: Likelihood
    prior: Prior
    beta: float = 1.0

    def at(self, loc: Tensor, covariance: Covariance) -> Point:
        """Return the ELBO and its derivatives; this is one pass over the rows."""
        dense = is_dense(self.rows)
        sums = sweep(self.rows, self.likelihood, loc, covariance, dense)
        terms = self.prior.expected(loc, covariance)
        kl = -entropy(covariance, len(loc)) - terms.value
        precision = sums.precision / self.beta
        curvature = float(precision.flatten()[0])  # the bias multiplies 1 in each row
        if terms.precision.dim() == precision.dim():
            precision += terms.precision
        elif dense:
            precision.diagonal().add_(terms.precision)
        else:
            precision += terms.precision.diagonal()
        return Point(
            loc,
            covariance,
            sums.log_likelihood,
            kl,
            sums.log_likelihood - self.beta * kl,
            sums.gradient / self.beta + terms.gradient,
            precision,
            terms.precision,
            curvature,
            sums.largest_variance,
        )

    def kl(self, loc: Tensor, covariance: Covariance) -> float:
        """Return KL(Normal(loc, covariance) || prior), nats."""
        return -entropy(covariance, len(loc)) - self.prior.expected(loc, covariance).value


def entropy(covariance: Covariance, dimension: int) -> float:
    """Return the entropy of a Gaussian, nats."""
    return 0.5 * (float(covariance.log_det) + dimension * LOG_TWO_PI_E)
