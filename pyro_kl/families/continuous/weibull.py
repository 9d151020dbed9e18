"""Weibull(scale, concentration): a power of an Exponential."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Weibull

from ...numerics.dtypes import Parameters
from ...numerics.special.gamma import EULER_GAMMA
from ...numerics.special.gamma_divergences import gumbel_divergence
from ...numerics.special.incomplete import power_of_gamma_mean_excess
from ...registry.family import POSITIVE, Family, Moment, above
from ...registry.line import Point, positive_line
from ...registry.register import declare, formula


def entropy(scale: Tensor, concentration: Tensor) -> Tensor:
    return EULER_GAMMA * (1 - 1 / concentration) + torch.log(scale / concentration) + 1


def log_mean_power(k: Tensor, /, scale: Tensor, concentration: Tensor) -> Tensor:
    """Log E x^k."""
    return k * torch.log(scale) + torch.lgamma(1 + k / concentration)


def mean(scale: Tensor, concentration: Tensor) -> Tensor:
    return scale * torch.exp(torch.lgamma(1 + 1 / concentration))


def mean_excess(m: Tensor, /, scale: Tensor, concentration: Tensor) -> Tensor:
    """E (x - m)+."""
    average, one = mean(scale, concentration), torch.ones_like(scale)
    return power_of_gamma_mean_excess(m, average, one, scale, concentration)


def variance(scale: Tensor, concentration: Tensor) -> Tensor:
    first, second = torch.lgamma(1 + 1 / concentration), torch.lgamma(1 + 2 / concentration)
    return scale**2 * torch.exp(2 * first) * torch.expm1(second - 2 * first)


def mean_inverse(scale: Tensor, concentration: Tensor) -> Tensor:
    return torch.exp(torch.lgamma(1 - 1 / concentration)) / scale


def cross_entropy(
    mean_log: Tensor,
    log_mean_power: Callable[[Tensor], Tensor],
    /,
    scale: Tensor,
    concentration: Tensor,
) -> Tensor:
    k, log_scale = concentration, torch.log(scale)
    return (
        log_scale
        - torch.log(k)
        - (k - 1) * (mean_log - log_scale)
        + torch.exp(log_mean_power(k) - k * log_scale)
    )


def log_density_at(point: Point, scale: Tensor, concentration: Tensor) -> Tensor:
    log_z = concentration * (point.log_over(0.0) - torch.log(scale))
    return torch.log(concentration) + log_z - point.log_over(0.0) - torch.exp(log_z)


def shape(scale: Tensor, concentration: Tensor) -> Tensor:
    return concentration


weibull = declare(
    Family(
        Weibull,
        parameters=("scale", "concentration"),
        support=POSITIVE,
        density="concentration / scale * (x / scale)**(concentration - 1) * exp(-(x / "
        "scale)**concentration)",
        examples=((1.0, 1.5), (0.3, 0.8), (20.0, 4.0)),
        reference="Johnson, Kotz & Balakrishnan (1994), ch. 21",
        entropy=entropy,
        moments={
            "mean": Moment(mean),
            "variance": Moment(variance),
            "mean_log": Moment(
                lambda scale, concentration: torch.log(scale) - EULER_GAMMA / concentration
            ),
            "variance_log": Moment(
                lambda scale, concentration: math.pi**2 / (6 * concentration**2)
            ),
            "mean_inverse": Moment(mean_inverse, finite=above(concentration=1)),
            "mean_excess": Moment(mean_excess),
            "log_mean_power": Moment(log_mean_power),
        },
        cross_entropy=cross_entropy,
        arguments={"log_mean_power": "q.concentration"},
        line=positive_line(
            log_density_at,
            centre=lambda scale, concentration: torch.log(scale),
            width=lambda scale, concentration: 1 / concentration,
            reach=(40.0, 3.8),
            standard={"scale": 1.0, "concentration": 1.0},
            index=(shape, math.inf),
            growth=(0.0, shape),
            decay=(None, lambda scale, concentration: scale**-concentration),
        ),
    )
)


@formula(
    weibull,
    weibull,
    cases=[
        ((1.0, 1.5), (2.0, 0.7), 0.48465411172557310912),
        ((3.0, 2.02), (3.0, 2.0), 8.9634834848746640065e-5),
    ],
    reference="Bauckhage (2013), arXiv:1310.3713; split derived in the docstring",
)
def kl_weibull_weibull(p: Parameters, q: Parameters) -> Tensor:
    """KL(Weibull(l, k) || Weibull(L, K)), that of two Gumbels, as -log x is a Gumbel.

    With r = K/k and a = K log(l/L) + lgamma(1 + r), as two terms that are never negative,

        KL = [exp(a) - 1 - a] + [lgamma(r) - lgamma(1) - (r - 1) psi(1)]
    """
    k_ratio = q["concentration"] / p["concentration"]
    d = (q["concentration"] - p["concentration"]) / p["concentration"]
    u = (p["scale"] - q["scale"]) / q["scale"]
    near = u.abs() < 0.5
    log_ratio = torch.where(
        near, torch.log1p(torch.where(near, u, 0.0)), torch.log(p["scale"]) - torch.log(q["scale"])
    )
    return gumbel_divergence(k_ratio, d, -q["concentration"] * log_ratio)
