"""Laplace(loc, scale)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Laplace, Normal

from ...numerics.dtypes import Parameters
from ...numerics.special.divergences import itakura_saito
from ...numerics.special.incomplete import mean_shortfall
from ...numerics.special.logarithms import expm1mx_of_distance
from ...registry.family import Moment, location_scale
from ...registry.line import Point, location_scale_line
from ...registry.register import declare, formula


def mean_excess(m: Tensor, /, loc: Tensor, scale: Tensor) -> Tensor:
    """E (x - m)+."""
    d = loc - m
    below = d <= 0  # |d| would have the derivatives of neither side at 0
    far = 0.5 * scale * torch.exp(torch.where(below, d, -d) / scale)
    return torch.where(below, far, d + far)


def log_laplace(t: Tensor, /, loc: Tensor, scale: Tensor) -> Tensor:
    """Log E exp(-t x), for t < 1 / scale."""
    return -t * loc - torch.log1p(-t * scale) - torch.log1p(t * scale)


def cross_entropy(
    mean: Tensor, mean_excess: Callable[[Tensor], Tensor], /, loc: Tensor, scale: Tensor
) -> Tensor:
    above = mean_excess(loc)
    return torch.log(2 * scale) + (above + mean_shortfall(above, mean - loc)) / scale


def log_density_at(point: Point, loc: Tensor, scale: Tensor) -> Tensor:
    return -((point.x - loc) / scale).abs() - torch.log(2 * scale)


laplace = declare(
    location_scale(
        Laplace,
        density="exp(-Abs(z)) / (2 * scale)",
        far=(-30.0, 12.0),
        reference="Johnson, Kotz & Balakrishnan (1995), ch. 24",
        kinks=lambda loc, **_: (loc,),
        entropy=lambda loc, scale: 1 + torch.log(2 * scale),
        moments={
            "mean": Moment(lambda loc, scale: loc),
            "variance": Moment(lambda loc, scale: 2 * scale**2),
            "mean_excess": Moment(mean_excess),
            "log_laplace": Moment(
                log_laplace, argument_below=lambda loc, scale: 1 / scale, below="1 / p.scale"
            ),
        },
        cross_entropy=cross_entropy,
        replaces={Normal: "torch expands the square, which cancels: -3725 instead of 0.57"},
        line=location_scale_line(
            log_density_at,
            growth=(1.0, 1.0),
            rate=(lambda loc, scale: 1 / scale, lambda loc, scale: 1 / scale),
        ),
    )
)


@formula(
    laplace,
    laplace,
    cases=[
        ((1.0, 1.0), (0.0, 2.0), 0.37708690114566647021),
        ((1.0, 1e6), (0.0, 1e6), 4.9999983333337499999e-13),
        ((0.3, 1.000001), (0.3, 1.0), 4.9999966658465011079e-13),
    ],
    reference="Gil, Alajaji & Linder (2013), table 3",
    replaces="torch loses all digits where p is close to q",
)
def kl_laplace_laplace(p: Parameters, q: Parameters) -> Tensor:
    """KL(Laplace(m, b) || Laplace(mu, c)).

    With d = |m - mu| it is [b/c - 1 - log(b/c)] + (b/c) [exp(-d/b) - 1 + d/b].
    """
    shift = expm1mx_of_distance((p["loc"] - q["loc"]) / p["scale"])
    return itakura_saito(p["scale"], q["scale"]) + p["scale"] / q["scale"] * shift
