"""The horseshoe distribution, and the KL of a Normal from it."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import HalfCauchy, Normal, TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ...numerics.special.gamma import EULER_GAMMA
from ...numerics.special.logarithms import HALF_LOG_TAU
from ...numerics.special.series import horner
from ...registry.pair import Case
from ...registry.provenance import Use, home_of, note
from ...registry.register import register
from ...registry.shapes import broadcast_batch
from ...registry.tensors import promoted
from .bernstein import Expected, expected, log_inverse_exp1_weights

#: p(x) = exp(y) E1(y) / sqrt(2 pi^3) with y = x^2 / 2, for a scale of 1.
_LOG_NORMALISER = 0.5 * math.log(2.0 * math.pi**3)
#: -log p(sqrt(2)): exp(1) E1(1) is 0.5963...
_MINUS_LOG_AT_ROOT_2 = _LOG_NORMALISER - math.log(0.59634736232319407434)
_ROOT_2 = math.sqrt(2.0)
#: The series of E1 is used up to here, the continued fraction above.
_MIDDLE = 2.0
#: Coefficients of [E1(y) + log y + Euler's constant] / y, 26 of them.
_SERIES = [(-1.0) ** (k + 1) / (k * math.factorial(k)) for k in range(1, 27)]
_FRACTIONS = 60


def log_scaled_exp1(y: Tensor) -> Tensor:
    """Return log(exp(y) E1(y)) for y >= 0; inf at 0.

    Reference: DLMF 6.6.2 (series) and 6.9.1 (continued fraction).
    """
    small = y < _MIDDLE
    low, high = torch.where(small, y, 1.0), torch.where(small, _MIDDLE, y)
    exp1 = low * horner(_SERIES, low) - torch.log(low) - EULER_GAMMA
    inverse = high + (2 * _FRACTIONS + 1)
    for k in range(_FRACTIONS, 0, -1):
        inverse = high + (2 * k - 1) - k * k / inverse
    return torch.where(small, low + torch.log(exp1), -torch.log(inverse))


class Horseshoe(TorchDistribution):
    """x = scale * lambda * z with lambda ~ HalfCauchy(1) and z ~ Normal(0, 1).

    The density is infinite at 0, like -log |x|, and its tails are those of a Cauchy distribution:
    small coefficients shrink to 0, large ones stay as they are. The local scale lambda of every
    coefficient is integrated out.

    Args:
        scale: the global scale, positive.

    Reference: Carvalho, Polson & Scott (2010), The horseshoe estimator for sparse signals,
    Biometrika 97, 465-480.

    Example:
        >>> Horseshoe(torch.tensor(1.0)).log_prob(torch.tensor(1.0))
        tensor(-2.1439)
    """

    arg_constraints = {"scale": constraints.positive}  # noqa: RUF012  torch's way
    support = constraints.real
    has_rsample = True

    def __init__(self, scale: Tensor, *, validate_args: bool | None = None) -> None:
        self.scale = torch.as_tensor(scale)
        super().__init__(self.scale.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """There is none: nan, as of a Cauchy distribution."""
        return torch.full_like(self.scale, torch.nan)

    @property
    def variance(self) -> Tensor:
        """Infinite, as of a Cauchy distribution."""
        return torch.full_like(self.scale, torch.inf)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Horseshoe:
        """Return the same distribution with a larger batch shape."""
        return Horseshoe(self.scale.expand(batch_shape), validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw lambda and z, and return their product with the scale."""
        one = torch.ones_like(self.scale)
        local = HalfCauchy(one).rsample(sample_shape)
        return self.scale * local * Normal(0.0 * one, one).rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density, nats; inf at 0."""
        if self._validate_args:
            self._validate_sample(value)
        half_square = 0.5 * (value / self.scale).square()
        return log_scaled_exp1(half_square) - torch.log(self.scale) - _LOG_NORMALISER


def minus_expected_log_density(loc: Tensor, variance: Tensor) -> Expected:
    """Return -E log p(x) under Normal(loc, variance) for a scale of 1, and its derivatives.

    With y = x^2 / 2 the logarithm of the density is that of exp(y) E1(y), less a constant.
    """
    value, slope, curvature = expected(log_inverse_exp1_weights(), loc / _ROOT_2, variance / 2)
    return Expected(value + _MINUS_LOG_AT_ROOT_2, slope / _ROOT_2, curvature / 2)


@register(
    torch.distributions.Normal,
    Horseshoe,
    cases=[
        Case({"loc": 0.0, "scale": 1.0}, {"scale": 1.0}, 0.2912895182201846895041),
        Case({"loc": 0.5, "scale": 0.1}, {"scale": 2.0}, 2.53089228468618568158),
        Case({"loc": 30.0, "scale": 2.0}, {"scale": 0.5}, 6.750065594169268819278),
        Case({"loc": 0.0, "scale": 0.001}, {"scale": 1.0}, 4.84070649122485018526),
    ],
    reference="Carvalho, Polson & Scott (2010), theorem 1; the integral of bernstein.py",
    method="quadrature",
)
def kl_normal_horseshoe(p: torch.distributions.Normal, q: Horseshoe) -> Tensor:
    """KL(Normal || Horseshoe): the entropy is closed, the cross-entropy an integral."""
    shape, dtype = broadcast_batch(p, q), promoted((p, q))
    loc, sd, scale = (x.double().expand(shape).reshape(-1) for x in (p.loc, p.scale, q.scale))
    cross_entropy = minus_expected_log_density(loc / scale, (sd / scale).square()).value
    value = cross_entropy - torch.log(sd / scale) - (HALF_LOG_TAU + 0.5)
    error = 1e-12 * (1.0 + cross_entropy.detach().abs())
    note(Use("quadrature", home_of(__name__), error.reshape(shape)))
    return value.reshape(shape).to(dtype)
