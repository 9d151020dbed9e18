r"""How a posterior moves with the weight of the KL and with the prior's scale.

At the optimum the ELBO's gradient ``g(x, t)`` is zero, for ``x`` the means and (co)variances and
``t`` the setting. By the implicit function theorem ``dx/dt = -H^-1 dg/dt``, ``H`` the Hessian in
``x``: no second fit is needed.

Reference: Giordano, Broderick and Jordan (2018), Covariances, Robustness, and Variational Bayes,
Journal of Machine Learning Research 19(51), section 4.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ...messages import see
from ...results.result import Result
from ...results.table import Table, shown_rows
from ..covariances.covariance import Covariance, DiagonalCovariance, FullCovariance
from ..covariances.precision import as_matrix
from ..optimum.objective import Objective
from ..priors.prior import GaussianPrior
from .full_response import full_response
from .linear_response import hessian_factor

#: The prior's gradient is differenced over this step of the logarithm of its scale.
STEP = 1e-5


@dataclass(frozen=True, repr=False)
class Sensitivity(Result):
    """Derivatives of each coefficient's posterior mean and sd, all of shape ``(D + 1,)``.

    Attributes:
        names: of the coefficients, "bias" first.
        loc: the posterior means.
        scale: the posterior sds.
        loc_by_beta: of the means, with respect to the weight of the KL.
        scale_by_beta: of the sds.
        loc_by_prior_scale: of the means, with respect to the logarithm of the prior scale of all
            weights; the bias keeps its own.
        scale_by_prior_scale: of the sds.
    """

    names: tuple[str, ...]
    loc: NDArray[Any]
    scale: NDArray[Any]
    loc_by_beta: NDArray[Any]
    scale_by_beta: NDArray[Any]
    loc_by_prior_scale: NDArray[Any]
    scale_by_prior_scale: NDArray[Any]

    _index = "coefficient"

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary for each coefficient."""
        names = [field.name for field in dataclasses.fields(self)[1:]]
        numbers = zip(*(getattr(self, name).tolist() for name in names), strict=True)
        return [
            {"coefficient": name, **dict(zip(names, row, strict=True))}
            for name, row in zip(self.names, numbers, strict=True)
        ]

    def _table(self) -> Table:
        shown, more = shown_rows(len(self.names))
        every = self.to_dicts()
        cells = [
            [name, *(f"{number:.4f}" for number in numbers)]
            for name, *numbers in (every[i].values() for i in shown)
        ]
        return Table(_HEADER, cells, "lrrrrrr", more)


_HEADER = (
    "coefficient", "mean", "sd", "d mean / d beta", "d sd / d beta",
    "d mean / d log scale", "d sd / d log scale",
)  # fmt: skip


def sensitivity(
    objective: Objective, loc: Tensor, covariance: Covariance, names: tuple[str, ...]
) -> Sensitivity:
    """Return the derivatives at the optimum of a full or diagonal posterior.

    Args:
        objective: the ELBO.
        loc: the posterior mean, shape ``(D + 1,)``, the bias first.
        covariance: the posterior covariance.
        names: of the features.

    Raises:
        ValueError: the covariance is of low rank, the prior has no scale, or the ELBO has no
            strict maximum there.
    """
    by_beta = _by_beta(objective, loc, covariance)
    by_scale = _by_prior_scale(objective, loc, covariance)
    by_loc, by_covariance = (torch.stack(pair) for pair in zip(by_beta, by_scale, strict=True))
    if isinstance(covariance, DiagonalCovariance):
        both = torch.cat([by_loc, by_covariance.diagonal(dim1=-2, dim2=-1)], dim=-1)
        factor = hessian_factor(objective, loc, covariance)
        of_loc, of_variance = torch.cholesky_solve(both.mT, factor).mT.chunk(2, dim=-1)
    elif isinstance(covariance, FullCovariance):
        of_loc, change = full_response(objective, loc, covariance, by_loc, by_covariance)
        of_variance = change.diagonal(dim1=-2, dim2=-1)
    else:
        raise ValueError(
            f"Sensitivities are those of a full or a diagonal posterior, and this one is "
            f"{type(covariance).__name__}: fit with covariance='full'." + see("covariance")
        )
    scale = covariance.marginal_scale
    of_scale = of_variance / (2.0 * scale)
    arrays = (loc, scale, of_loc[0], of_scale[0], of_loc[1], of_scale[1])
    return Sensitivity(("bias", *names), *(array.numpy() for array in arrays))


def _by_beta(objective: Objective, loc: Tensor, covariance: Covariance) -> tuple[Tensor, Tensor]:
    """The derivative of the ELBO's gradient in beta: minus the gradient of the KL."""
    terms = objective.prior.expected(loc, covariance)
    of_covariance = 0.5 * (as_matrix(covariance.precision) - as_matrix(terms.precision))
    return terms.gradient, of_covariance


def _by_prior_scale(
    objective: Objective, loc: Tensor, covariance: Covariance
) -> tuple[Tensor, Tensor]:
    """The derivative of the ELBO's gradient in the logarithm of the prior's scale."""
    wide, narrow = (
        rescaled(objective.prior, math.exp(step)).expected(loc, covariance)
        for step in (STEP, -STEP)
    )
    rate = objective.beta / (2.0 * STEP)
    return rate * (wide.gradient - narrow.gradient), -0.5 * rate * as_matrix(
        wide.precision - narrow.precision
    )


def rescaled(prior: Any, factor: float) -> Any:
    """Return the prior with the scale of its weights, not of its bias, times a factor.

    A posterior of earlier data that serves as the prior is rescaled about its mean, bias included.
    """
    if isinstance(prior, GaussianPrior):
        parts = {name: part * factor for name, part in vars(prior.covariance).items()}
        return dataclasses.replace(prior, covariance=type(prior.covariance)(**parts))
    scale = prior.scale.clone()
    scale[1:] *= factor
    return dataclasses.replace(prior, scale=scale)
