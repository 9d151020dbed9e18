"""Normal(loc, scale)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Gumbel, Laplace, Normal

from ...numerics.dtypes import Parameters
from ...numerics.special.alpha_divergences import log_gap
from ...numerics.special.logarithms import (
    HALF_LOG_TAU,
    minus_log1pmx_of_log,
    squared_ratio_minus_one,
)
from ...registry.family import Moment, location_scale
from ...registry.line import Point, location_scale_line
from ...registry.register import declare, formula


def entropy(loc: Tensor, scale: Tensor) -> Tensor:
    return torch.log(scale) + (0.5 + HALF_LOG_TAU)


def mean_excess(m: Tensor, /, loc: Tensor, scale: Tensor) -> Tensor:
    """E (x - m)+."""
    z = (loc - m) / scale
    density = torch.exp(-0.5 * z * z - HALF_LOG_TAU)
    return scale * density + (loc - m) * torch.special.ndtr(z)


def log_laplace(t: Tensor, /, loc: Tensor, scale: Tensor) -> Tensor:
    """Log E exp(-t x)."""
    return 0.5 * (t * scale) ** 2 - t * loc


def cross_entropy(mean: Tensor, variance: Tensor, /, loc: Tensor, scale: Tensor) -> Tensor:
    # variance + (mean - loc)^2, and never E x^2 - 2 loc mean + loc^2, which cancels
    return torch.log(scale) + HALF_LOG_TAU + (variance + (mean - loc) ** 2) / (2 * scale**2)


def log_density_at(point: Point, loc: Tensor, scale: Tensor) -> Tensor:
    z = (point.x - loc) / scale
    return -0.5 * z * z - torch.log(scale) - HALF_LOG_TAU


def half_precision(loc: Tensor, scale: Tensor) -> Tensor:
    return 0.5 / scale / scale


def renyi(p: Parameters, q: Parameters, alpha: float) -> Tensor:
    r"""Renyi's divergence of Normal(m, s) and Normal(mu, sigma).

    With v = (s/sigma)^2 - 1, d = (m - mu)/sigma and w = 1 + (1 - a) v, the variance of the member
    proportional to p^a q^(1 - a) over s^2, inverted, it is

        [log(w) / (1 - a) - log(1 + v) + a d^2 / w] / 2,  +inf where w <= 0

    Reference: Gil, Alajaji & Linder (2013), table 2.
    """
    v = squared_ratio_minus_one(p["scale"], q["scale"])
    d = (p["loc"] - q["loc"]) / q["scale"]
    finite = ~(1 + (1 - alpha) * v <= 0)
    v = torch.where(finite, v, 0.0)
    log_ratio = 2 * (torch.log(p["scale"]) - torch.log(q["scale"]))
    value = log_gap(v, alpha, log_ratio) + alpha * d * d / (1 + (1 - alpha) * v)
    return torch.where(finite, 0.5 * value, math.inf)


normal = declare(
    location_scale(
        Normal,
        density="exp(-(z**2 / 2)) / (scale * sqrt(2 * pi))",
        far=(-30.0, 12.0),
        reference="Johnson, Kotz & Balakrishnan (1994), ch. 13",
        entropy=entropy,
        moments={
            "mean": Moment(lambda loc, scale: loc),
            "variance": Moment(lambda loc, scale: scale**2),
            "mean_excess": Moment(mean_excess),
            "log_laplace": Moment(log_laplace),
        },
        cross_entropy=cross_entropy,
        renyi=renyi,
        replaces={
            Gumbel: "torch's float32 exponent cancels: -0.42 instead of 0.23",
            Laplace: "torch carries float32 in float32",
        },
        line=location_scale_line(
            log_density_at, reach=(9.0, 9.0), growth=(2.0, 2.0), decay=(half_precision,) * 2
        ),
    )
)


def partials(p: Parameters, q: Parameters) -> tuple[Tensor, ...]:
    """Derivatives by p's loc and scale, then q's."""
    v = squared_ratio_minus_one(p["scale"], q["scale"])
    d = (p["loc"] - q["loc"]) / q["scale"]
    by_loc = d / q["scale"]
    return by_loc, v / p["scale"], -by_loc, -(v + d * d) / q["scale"]


@formula(
    normal,
    normal,
    cases=[
        ((1.0, 1.0), (0.0, 1.0), 0.5),
        ((1.0, 0.5), (0.0, 2.0), 1.0425443611198906188),
        ((0.3, 1.000001), (0.3, 1.0), 9.9999966650238347285e-13),
        ((-2.0, 1e-3), (5.0, 40.0), 10.111947233408573334),
    ],
    reference="Gil, Alajaji & Linder (2013), table 3",
    replaces="torch loses all digits where p is close to q, and its float32 scale ratios below "
    "1e-23 give a false inf",
    partials=partials,
)
def kl_normal_normal(p: Parameters, q: Parameters) -> Tensor:
    r"""KL(Normal(m, s) || Normal(mu, sigma)).

    With v = (s/sigma)^2 - 1 and d = (m - mu)/sigma the textbook's
    log(sigma/s) + (s^2 + (m - mu)^2)/(2 sigma^2) - 1/2 is a sum of two terms >= 0:

        2 KL = [v - log(1 + v)] + d^2
    """
    v = squared_ratio_minus_one(p["scale"], q["scale"])
    d = (p["loc"] - q["loc"]) / q["scale"]
    return 0.5 * (minus_log1pmx_of_log(v, 2 * torch.log(p["scale"] / q["scale"])) + d * d)
