"""InverseGamma(concentration, rate): the reciprocal of a Gamma."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import InverseGamma

from ...numerics.dtypes import Parameters
from ...numerics.special.gamma import stirling, stirling_slope
from ...registry.family import POSITIVE, Family, Moment, above, straight
from ...registry.line import Distance, Point, positive_line
from ...registry.register import declare, formula
from . import gamma


def entropy(concentration: Tensor, rate: Tensor) -> Tensor:
    """In Stirling's remainder: no terms that grow with the concentration have to cancel."""
    a = concentration
    return stirling(a) - (1 + a) * stirling_slope(a) - torch.log(a) + torch.log(rate)


def mean(concentration: Tensor, rate: Tensor) -> Tensor:
    return rate / (concentration - 1)


def variance(concentration: Tensor, rate: Tensor) -> Tensor:
    return (rate / (concentration - 1)) ** 2 / (concentration - 2)


def mean_log(concentration: Tensor, rate: Tensor) -> Tensor:
    return torch.log(rate) - torch.digamma(concentration)


def log_mean_power(k: Tensor, /, concentration: Tensor, rate: Tensor) -> Tensor:
    """Log E x^k, for k < concentration."""
    a = concentration
    return torch.lgamma(a - k) - torch.lgamma(a) + k * torch.log(rate)


def cross_entropy(
    mean_log: Tensor, mean_inverse: Tensor, /, concentration: Tensor, rate: Tensor
) -> Tensor:
    a = concentration
    return torch.lgamma(a) - a * torch.log(rate) + (1 + a) * mean_log + rate * mean_inverse


def log_density_at(point: Point, concentration: Tensor, rate: Tensor) -> Tensor:
    log_z = torch.log(rate) - point.log_over(0.0)
    norm = torch.lgamma(concentration)
    return concentration * log_z - torch.exp(log_z) - point.log_over(0.0) - norm


def bend(concentration: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """The place on the line where the exponential of 1 / x turns into the power, and the width."""
    more = 1 + concentration
    return torch.log(rate) - torch.log(more), torch.rsqrt(more)


inverse_gamma = declare(
    Family(
        InverseGamma,
        parameters=("concentration", "rate"),
        support=POSITIVE,
        density="rate**concentration / gamma(concentration) * x**(-concentration - 1) * "
        "exp(-(rate / x))",
        examples=((3.0, 2.0), (0.6, 0.1), (25.0, 60.0)),
        reference="Johnson, Kotz & Balakrishnan (1994), ch. 17",
        entropy=entropy,
        moments={
            "mean": Moment(mean, finite=above(concentration=1)),
            "variance": Moment(variance, finite=above(concentration=2)),
            "mean_log": Moment(mean_log),
            "variance_log": Moment(gamma.variance_log),
            "mean_inverse": Moment(gamma.mean),
            "log_mean_power": Moment(
                log_mean_power,
                argument_below=lambda concentration, rate: concentration,
                below="p.concentration",
            ),
        },
        cross_entropy=cross_entropy,
        geometric_mixture=straight("concentration", "rate"),
        line=positive_line(
            log_density_at,
            centre=mean_log,
            width=gamma.log_width,
            bend=bend,
            reach=(9.0, 40.0),
            index=(math.inf, lambda concentration, rate: concentration),
            growth=(1.0, 0.0),
            decay=(lambda concentration, rate: rate, None),
            distance=lambda concentration, rate: Distance(
                torch.zeros_like(rate), None, mean(concentration, rate)
            ),
        ),
    )
)


@formula(
    inverse_gamma,
    inverse_gamma,
    cases=[
        ((3.0, 2.0), (2.0, 5.0), 2.8970556907902116996),
        ((5e4, 1e4), (5.0001e4, 1e4), 1.0000033333333332e-5),
    ],
    reference="Llera & Beckmann (2016), arXiv:1605.01019, eq. 23",
)
def kl_inverse_gamma_inverse_gamma(p: Parameters, q: Parameters) -> Tensor:
    """KL(InverseGamma(a, b) || InverseGamma(c, d)) is the KL of the two Gammas."""
    return gamma.kl_gamma_gamma(p, q)
