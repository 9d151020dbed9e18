"""Gumbel(loc, scale)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Gumbel

from ...numerics.dtypes import Parameters
from ...numerics.special.gamma import EULER_GAMMA
from ...numerics.special.gamma_divergences import gumbel_divergence
from ...numerics.special.incomplete import gumbel_mean_excess
from ...registry.family import Moment, location_scale
from ...registry.line import Point, location_scale_line
from ...registry.pair import Case
from ...registry.register import declare, formula


def log_laplace(t: Tensor, /, loc: Tensor, scale: Tensor) -> Tensor:
    """Log E exp(-t x), finite for every t > 0."""
    return -t * loc + torch.lgamma(1 + t * scale)


def cross_entropy(
    mean: Tensor, log_laplace: Callable[[Tensor], Tensor], /, loc: Tensor, scale: Tensor
) -> Tensor:
    # exp of the sum, because exp(loc / scale) alone may overflow
    shrunk = torch.exp(loc / scale + log_laplace(1 / scale))
    return torch.log(scale) + (mean - loc) / scale + shrunk


def log_density_at(point: Point, loc: Tensor, scale: Tensor) -> Tensor:
    z = (point.x - loc) / scale
    return -torch.log(scale) - z - torch.exp(-z)


gumbel = declare(
    location_scale(
        Gumbel,
        density="exp(-z - exp(-z)) / scale",
        reference="Johnson, Kotz & Balakrishnan (1995), ch. 22",
        entropy=lambda loc, scale: torch.log(scale) + (EULER_GAMMA + 1),
        moments={
            "mean": Moment(lambda loc, scale: loc + EULER_GAMMA * scale),
            "variance": Moment(lambda loc, scale: (math.pi * scale) ** 2 / 6),
            "mean_excess": Moment(lambda m, /, loc, scale: gumbel_mean_excess(m, loc, scale)),
            "log_laplace": Moment(log_laplace),
        },
        cross_entropy=cross_entropy,
        arguments={"log_laplace": "1 / q.scale"},
        line=location_scale_line(
            log_density_at,
            reach=(4.5, 40.0),
            growth=(0.0, 1.0),
            rate=(math.inf, lambda loc, scale: 1 / scale),
            exponential=(lambda loc, scale: 1 / scale, 0.0),
            decay=(lambda loc, scale: loc / scale, None),
        ),
    )
)


@formula(
    gumbel,
    gumbel,
    cases=[
        Case({"loc": 1.0, "scale": 1.0}, {"loc": 0.0, "scale": 2.0}, 0.44206314985913899848),
        Case({"loc": 1.0, "scale": 1e3}, {"loc": 0.0, "scale": 1e3}, 4.9983337499166805536e-7),
        Case({"loc": 5.0, "scale": 0.101}, {"loc": 5.0, "scale": 0.1}, 9.0935499268343415767e-5),
    ],
    reference="from the densities; split derived in the docstring",
    replaces="torch loses its digits where p is close to q",
)
def kl_gumbel_gumbel(p: Parameters, q: Parameters) -> Tensor:
    """KL(Gumbel(m, s) || Gumbel(mu, sigma)), as two terms that are never negative.

    With r = s/sigma, a = lgamma(1 + r) - (m - mu)/sigma and psi(1) = -gamma,

        KL = [exp(a) - 1 - a] + [lgamma(r) - lgamma(1) - (r - 1) psi(1)]
    """
    r, u = p["scale"] / q["scale"], (p["scale"] - q["scale"]) / q["scale"]
    value = gumbel_divergence(r, u, (p["loc"] - q["loc"]) / q["scale"])
    return torch.where(torch.isinf(q["scale"]), math.inf, value)
