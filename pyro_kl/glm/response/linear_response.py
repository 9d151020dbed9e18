r"""Covariances that a diagonal posterior leaves out, by linear response.

Where a linear function ``t' w`` of the coefficients ``w`` is added to the log posterior, the exact
posterior mean moves at the rate of the posterior covariance. The mean ``m`` of the variational
posterior moves too, and its rate

    dm / dt' = beta [-H^-1]_mm,    H the Hessian of the ELBO in (m, v), v the variances,

with the weight beta of the KL, is an estimate of that covariance: exact for a Gaussian posterior,
and with all correlations, although the family has none.

Reference: Giordano, Broderick and Jordan (2018), Covariances, Robustness, and Variational Bayes,
Journal of Machine Learning Research 19(51).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...messages import see
from ..covariances.covariance import Covariance, DiagonalCovariance
from ..optimum.objective import Objective
from ..passes.distributed import sum_of_chunks
from ..priors.prior import Prior
from .row_derivatives import dense_rows, row_derivatives

#: Of an error.
NO_MAXIMUM = (
    "The ELBO has no strict maximum at this posterior. Fit with a smaller tol; under a prior with "
    "heavy tails the fit may be at a saddle point, where there is no linear response."
)
#: The Hessian has 4 (D + 1)^2 numbers: 3.2 GB for this many coefficients.
MOST_COEFFICIENTS = 10_000
#: A prior's second derivatives are differences over this part of a posterior sd: their error is
#: about its square, and the rounding error divided by it.
STEP = 1e-5


def linear_response_covariance(
    objective: Objective, loc: Tensor, covariance: Covariance
) -> Tensor:
    """Return the covariance of all coefficients at the optimum of a diagonal posterior.

    It takes one pass over the data.

    Args:
        objective: the ELBO.
        loc: the posterior mean, shape ``(D + 1,)``, the bias first.
        covariance: the posterior covariance, diagonal.

    Returns:
        Shape ``(D + 1, D + 1)``, the bias first, float64.

    Raises:
        ValueError: the covariance is not diagonal, there are too many coefficients, or the ELBO
            has no strict maximum there.
    """
    size = len(loc)
    inverse = torch.cholesky_inverse(hessian_factor(objective, loc, covariance))
    return objective.beta * inverse[:size, :size]


def hessian_factor(objective: Objective, loc: Tensor, covariance: Covariance) -> Tensor:
    """Return the Cholesky factor of minus the ELBO's Hessian in means and variances."""
    if not isinstance(covariance, DiagonalCovariance):
        raise ValueError(
            "Linear response is for a diagonal posterior, and this one is "
            f"{type(covariance).__name__}: fit with covariance='diagonal'." + see("covariance")
        )
    size = len(loc)
    if size > MOST_COEFFICIENTS:
        raise ValueError(
            f"The Hessian of {size:,} means and as many variances does not fit: at most "
            f"{MOST_COEFFICIENTS:,} coefficients." + see("covariance")
        )
    factor, info = torch.linalg.cholesky_ex(minus_hessian(objective, loc, covariance))
    if info:
        raise ValueError(NO_MAXIMUM + see("ill-conditioned-fit"))
    return factor


def minus_hessian(objective: Objective, loc: Tensor, covariance: DiagonalCovariance) -> Tensor:
    """Return minus the ELBO's Hessian in (means, variances), shape ``(2 D + 2, 2 D + 2)``."""
    scale = covariance.scale
    entropy = torch.cat([torch.zeros_like(scale), 0.5 * scale**-4])
    return (
        _of_rows(objective, loc, scale.square())
        + objective.beta * torch.diag(entropy)
        - objective.beta * _of_prior(objective.prior, loc, scale)
    )


def _of_rows(objective: Objective, loc: Tensor, variance: Tensor) -> Tensor:
    """Minus the Hessian of the expected log likelihood, in one pass over the rows."""

    def of_chunk(index: int) -> Tensor:
        chunk = objective.rows.chunk(index)
        rows = dense_rows(chunk)
        squares = rows.square()
        curvature, third, fourth = row_derivatives(
            objective.likelihood, chunk, rows @ loc, (squares @ variance).sqrt()
        )
        # Each derivative with respect to a variance halves, and squares the entry of the row.
        loc_loc = rows.mT @ (rows * curvature.unsqueeze(-1))
        loc_variance = rows.mT @ (squares * (-0.5 * third).unsqueeze(-1))
        variance_variance = squares.mT @ (squares * (-0.25 * fourth).unsqueeze(-1))
        upper = torch.cat([loc_loc, loc_variance], dim=-1)
        lower = torch.cat([loc_variance.mT, variance_variance], dim=-1)
        return torch.cat([upper, lower])

    return sum_of_chunks(objective.rows.num_chunks, of_chunk)


def _of_prior(prior: Prior, loc: Tensor, scale: Tensor) -> Tensor:
    """The Hessian of the expected log prior.

    With the precision of `PriorTerms`, the derivative in a variance is -precision / 2, and the
    second one in the means is -precision. The coefficients are independent, unless the prior is
    Gaussian, whose precision is constant.
    """

    def precision(shift: float, stretch: float) -> Tensor:
        there = DiagonalCovariance(scale * math.sqrt(1.0 + stretch))
        return prior.expected(loc + shift * scale, there).precision

    def rate(shift: float, stretch: float) -> Tensor:
        change = precision(shift, stretch) - precision(-shift, -stretch)
        return torch.diag(change if change.dim() == 1 else change.diagonal()) / (2.0 * STEP)

    here = precision(0.0, 0.0)
    loc_loc = -here if here.dim() == 2 else -torch.diag(here)
    loc_variance = -0.5 * rate(STEP, 0.0) / scale
    variance_variance = -0.5 * rate(0.0, STEP) / scale.square()
    upper = torch.cat([loc_loc, loc_variance], dim=-1)
    return torch.cat([upper, torch.cat([loc_variance, variance_variance], dim=-1)])
