"""Shrinkage priors of the coefficients: Laplace, Student's t and the horseshoe.

Each is a product over the coefficients, so that only means and variances of q count. The curvature
of Student's t and of the horseshoe is negative in the tails: `PriorTerms.precision` may be too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor

from ..covariances.covariance import Covariance
from .bernstein import expected, log1p_weights
from .horseshoe import Horseshoe, minus_expected_log_density
from .prior import PriorTerms

#: Degrees of freedom of "studentt": heavy tails, but a finite variance.
STUDENT_T_DF = 4.0


@dataclass(frozen=True)
class LaplacePrior:
    """Independent Laplace distributions around 0.

    Attributes:
        scale: shape ``(D + 1,)``, float64.
    """

    scale: Tensor

    def expected(self, loc: Tensor, covariance: Covariance) -> PriorTerms:
        """Return the expected log density under Normal(loc, covariance), with derivatives.

        |x| is folded normal: E |x| = s sqrt(2 / pi) exp(-m^2 / 2 s^2) + m erf(m / (s sqrt(2))).

        Reference: Leone, Nelson & Nottingham (1961), The folded normal distribution.
        """
        sd = covariance.marginal_scale
        z = loc / sd
        twice_density = math.sqrt(2.0 / math.pi) * torch.exp(-0.5 * z.square())
        sign = torch.erf(z / math.sqrt(2.0))
        size = sd * twice_density + loc * sign
        value = -(size / self.scale + torch.log(2.0 * self.scale)).sum()
        return PriorTerms(float(value), -sign / self.scale, twice_density / (sd * self.scale))

    def distribution(self) -> dist.TorchDistribution:
        """Return the product of Laplace distributions."""
        return dist.Laplace(torch.zeros_like(self.scale), self.scale).to_event(1)


@dataclass(frozen=True)
class StudentTPrior:
    """Independent Student's t distributions around 0.

    Attributes:
        scale: shape ``(D + 1,)``, float64.
        df: degrees of freedom.
    """

    scale: Tensor
    df: float = STUDENT_T_DF

    def expected(self, loc: Tensor, covariance: Covariance) -> PriorTerms:
        """Return the expected log density under Normal(loc, covariance), with derivatives."""
        radius = math.sqrt(self.df) * self.scale
        variance = (covariance.marginal_scale / radius).square()
        log1p = expected(log1p_weights(), loc / radius, variance)
        power = 0.5 * (self.df + 1.0)
        log_top = math.lgamma(power) - math.lgamma(0.5 * self.df) - 0.5 * math.log(math.pi)
        value = (log_top - torch.log(radius) - power * log1p.value).sum()
        curvature = power * log1p.curvature / radius.square()
        return PriorTerms(float(value), -power * log1p.slope / radius, curvature)

    def distribution(self) -> dist.TorchDistribution:
        """Return the product of Student's t distributions."""
        df = torch.full_like(self.scale, self.df)
        return dist.StudentT(df, torch.zeros_like(self.scale), self.scale).to_event(1)


@dataclass(frozen=True)
class HorseshoePrior:
    """Independent horseshoes, each with its local scale integrated out.

    Attributes:
        scale: the global scales, shape ``(D + 1,)``, float64.
    """

    scale: Tensor

    def expected(self, loc: Tensor, covariance: Covariance) -> PriorTerms:
        """Return the expected log density under Normal(loc, covariance), with derivatives."""
        variance = (covariance.marginal_scale / self.scale).square()
        minus = minus_expected_log_density(loc / self.scale, variance)
        value = -(minus.value + torch.log(self.scale)).sum()
        curvature = minus.curvature / self.scale.square()
        return PriorTerms(float(value), -minus.slope / self.scale, curvature)

    def distribution(self) -> dist.TorchDistribution:
        """Return the product of horseshoes."""
        return Horseshoe(self.scale).to_event(1)
