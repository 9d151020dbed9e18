"""Priors of the coefficients, and their expected log density under a Gaussian."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import pyro.distributions as dist
import torch
from torch import Tensor

from ..covariances.covariance import Covariance

LOG_TWO_PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class PriorTerms:
    """The expected log density of a prior under q = Normal(loc, S), and its derivatives.

    Attributes:
        value: E_q log prior, nats.
        gradient: with respect to ``loc``, shape ``(D + 1,)``.
        precision: -2 times the derivative with respect to ``S``: shape ``(D + 1,)`` where only the
            variances count, ``(D + 1, D + 1)`` otherwise. It is the curvature of the negative log
            density, averaged over q (Price, 1958, A Useful Theorem for Nonlinear Devices).
    """

    value: float
    gradient: Tensor
    precision: Tensor


class Prior(Protocol):
    """A prior of D + 1 coefficients, the bias first."""

    def expected(self, loc: Tensor, covariance: Covariance) -> PriorTerms:
        """Return the expected log density under Normal(loc, covariance), with derivatives."""
        ...

    def distribution(self) -> dist.TorchDistribution:
        """Return the prior, event shape ``(D + 1,)``."""
        ...


@dataclass(frozen=True)
class NormalPrior:
    """Independent Normals of mean 0.

    Attributes:
        scale: the standard deviations, shape ``(D + 1,)``, float64.
    """

    scale: Tensor

    def expected(self, loc: Tensor, covariance: Covariance) -> PriorTerms:
        """Return the expected log density under Normal(loc, covariance), with derivatives."""
        precision = self.scale**-2
        squares = precision @ loc.square() + covariance.trace_with(precision)
        value = -0.5 * (squares + len(loc) * LOG_TWO_PI) - self.scale.log().sum()
        return PriorTerms(float(value), -precision * loc, precision)

    def distribution(self) -> dist.TorchDistribution:
        """Return the product of Normals."""
        return dist.Normal(torch.zeros_like(self.scale), self.scale).to_event(1)


@dataclass(frozen=True)
class GaussianPrior:
    """A Gaussian, such as the posterior of earlier data.

    Attributes:
        loc: shape ``(D + 1,)``, float64.
        covariance: of any kind.
    """

    loc: Tensor
    covariance: Covariance

    def expected(self, loc: Tensor, covariance: Covariance) -> PriorTerms:
        """Return the expected log density under Normal(loc, covariance), with derivatives."""
        precision = self.covariance.precision
        away = loc - self.loc
        pull = precision * away if precision.dim() == 1 else precision @ away
        squares = away @ pull + covariance.trace_with(precision)
        value = -0.5 * (squares + len(loc) * LOG_TWO_PI + self.covariance.log_det)
        return PriorTerms(float(value), -pull, precision)

    def distribution(self) -> dist.TorchDistribution:
        """Return the Gaussian."""
        return self.covariance.distribution(self.loc)
