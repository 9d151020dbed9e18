"""The sums over rows that one step of a fit needs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Statistics:
    """Sums over some rows, in float64; the bias comes first.

    Attributes:
        log_likelihood: of the weighted expected log likelihoods, nats.
        gradient: of the weighted slopes times the rows, shape ``(D + 1,)``.
        precision: of the weighted curvatures times the rows' outer products, shape
            ``(D + 1, D + 1)``, of which the upper triangle counts; or its diagonal, ``(D + 1,)``.
        largest_variance: no sum, but the largest variance of the predictors of these rows.
    """

    log_likelihood: float
    gradient: Tensor
    precision: Tensor
    largest_variance: float

    def __iadd__(self, other: Statistics) -> Statistics:
        """Add the sums over other rows in place, which spares a copy of the precision."""
        self.log_likelihood += other.log_likelihood
        self.gradient += other.gradient
        self.precision += other.precision
        self.largest_variance = max(self.largest_variance, other.largest_variance)
        return self
