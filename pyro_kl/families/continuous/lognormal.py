"""LogNormal(loc, scale): exp of a Normal."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import LogNormal

from ...numerics.dtypes import Parameters
from ...numerics.special.logarithms import HALF_LOG_TAU
from ...registry.family import POSITIVE, Family, Moment
from ...registry.line import Point, positive_line
from ...registry.register import declare, formula
from .normal import half_precision, kl_normal_normal, partials, renyi


def entropy(loc: Tensor, scale: Tensor) -> Tensor:
    return loc + torch.log(scale) + (0.5 + HALF_LOG_TAU)


def mean(loc: Tensor, scale: Tensor) -> Tensor:
    return torch.exp(loc + scale**2 / 2)


def variance(loc: Tensor, scale: Tensor) -> Tensor:
    return torch.expm1(scale**2) * torch.exp(2 * loc + scale**2)


def mean_inverse(loc: Tensor, scale: Tensor) -> Tensor:
    return torch.exp(scale**2 / 2 - loc)


def mean_excess(m: Tensor, /, loc: Tensor, scale: Tensor) -> Tensor:
    """E (x - m)+."""
    positive = m > 0
    d = (loc - torch.log(torch.where(positive, m, 1.0))) / scale
    beyond = mean(loc, scale) * torch.special.ndtr(d + scale) - m * torch.special.ndtr(d)
    return torch.where(positive, beyond, mean(loc, scale) - m)


def log_mean_power(k: Tensor, /, loc: Tensor, scale: Tensor) -> Tensor:
    """Log E x^k."""
    return k * loc + 0.5 * (k * scale) ** 2


def cross_entropy(mean_log: Tensor, variance_log: Tensor, /, loc: Tensor, scale: Tensor) -> Tensor:
    spread = (variance_log + (mean_log - loc) ** 2) / (2 * scale**2)
    return torch.log(scale) + HALF_LOG_TAU + mean_log + spread


def log_density_at(point: Point, loc: Tensor, scale: Tensor) -> Tensor:
    z = (point.log_over(0.0) - loc) / scale
    return -0.5 * z * z - torch.log(scale) - HALF_LOG_TAU - point.log_over(0.0)


lognormal = declare(
    Family(
        LogNormal,
        parameters=("loc", "scale"),
        support=POSITIVE,
        density="exp(-((log(x) - loc)**2 / (2 * scale**2))) / (x * scale * sqrt(2 * pi))",
        examples=((0.0, 1.0), (1.2, 0.3), (-2.0, 1.7)),
        reference="Johnson, Kotz & Balakrishnan (1994), ch. 14",
        entropy=entropy,
        moments={
            "mean": Moment(mean),
            "variance": Moment(variance),
            "mean_log": Moment(lambda loc, scale: loc),
            "variance_log": Moment(lambda loc, scale: scale**2),
            "mean_inverse": Moment(mean_inverse),
            "mean_excess": Moment(mean_excess),
            "log_mean_power": Moment(log_mean_power),
        },
        cross_entropy=cross_entropy,
        renyi=renyi,
        line=positive_line(
            log_density_at,
            centre=lambda loc, scale: loc,
            width=lambda loc, scale: scale,
            reach=(9.0, 9.0),
            standard={"loc": 0.0, "scale": 1.0},
            tilt=lambda loc, scale: scale,
            decay=(half_precision,) * 2,
        ),
    )
)


@formula(
    lognormal,
    lognormal,
    cases=[
        ((0.0, 1.0), (1.0, 2.0), 0.44314718055994530942),
        ((3.0, 0.500001), (3.0, 0.5), 3.999997333567378413e-12),
    ],
    reference="Gil, Alajaji & Linder (2013), table 3",
    partials=partials,
)
def kl_lognormal_lognormal(p: Parameters, q: Parameters) -> Tensor:
    """KL(LogNormal(m, s) || LogNormal(mu, sigma)) is the KL of the two Normals."""
    return kl_normal_normal(p, q)
