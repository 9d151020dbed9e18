"""HalfNormal(scale): the absolute value of a Normal(0, scale)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import HalfNormal

from ...numerics.dtypes import Parameters
from ...numerics.special.alpha_divergences import log_gap
from ...numerics.special.gamma import EULER_GAMMA
from ...numerics.special.logarithms import minus_log1pmx_of_log, squared_ratio_minus_one
from ...registry.family import INFINITE, POSITIVE, Family, Moment
from ...registry.line import Point, scale_line
from ...registry.pair import Case
from ...registry.register import declare, formula

HALF_LOG_HALF_PI = 0.5 * math.log(math.pi / 2)
ROOT_TWO_OVER_PI = math.sqrt(2 / math.pi)
LGAMMA_HALF = 0.5 * math.log(math.pi)
MEAN_LOG = -0.5 * (EULER_GAMMA + math.log(2))  # E log |z| for a standard normal z


def mean_excess(m: Tensor, /, scale: Tensor) -> Tensor:
    """E (x - m)+."""
    z = torch.relu(m) / scale
    density = torch.exp(-0.5 * z * z) * ROOT_TWO_OVER_PI
    beyond = scale * density - 2 * torch.relu(m) * torch.special.ndtr(-z)
    return beyond + torch.relu(-m)


def log_mean_power(k: Tensor, /, scale: Tensor) -> Tensor:
    """Log E x^k."""
    half = 0.5 * (k + 1)
    return k * (torch.log(scale) + 0.5 * math.log(2)) + torch.lgamma(half) - LGAMMA_HALF


def log_laplace(t: Tensor, /, scale: Tensor) -> Tensor:
    """Log E exp(-t x), for t > 0."""
    return torch.log(torch.special.erfcx(t * scale / math.sqrt(2)))


def cross_entropy(mean: Tensor, variance: Tensor, /, scale: Tensor) -> Tensor:
    return torch.log(scale) + HALF_LOG_HALF_PI + (variance + mean**2) / (2 * scale**2)


def log_density_at(point: Point, scale: Tensor) -> Tensor:
    z = point.x / scale
    return 0.5 * math.log(2 / math.pi) - torch.log(scale) - 0.5 * z * z


def renyi(p: Parameters, q: Parameters, alpha: float) -> Tensor:
    """That of two Normals of equal means."""
    v = squared_ratio_minus_one(p["scale"], q["scale"])
    finite = ~(1 + (1 - alpha) * v <= 0)
    v, log_ratio = torch.where(finite, v, 0.0), 2 * (torch.log(p["scale"]) - torch.log(q["scale"]))
    return torch.where(finite, 0.5 * log_gap(v, alpha, log_ratio), math.inf)


half_normal = declare(
    Family(
        HalfNormal,
        parameters=("scale",),
        support=POSITIVE,
        density="sqrt(2 / pi) / scale * exp(-(x**2 / (2 * scale**2)))",
        examples=({"scale": 1.0}, {"scale": 0.2}, {"scale": 15.0}),
        reference="Johnson, Kotz & Balakrishnan (1994), ch. 13",
        entropy=lambda scale: torch.log(scale) + (HALF_LOG_HALF_PI + 0.5),
        moments={
            "mean": Moment(lambda scale: scale * ROOT_TWO_OVER_PI),
            "variance": Moment(lambda scale: scale**2 * (1 - 2 / math.pi)),
            "mean_log": Moment(lambda scale: torch.log(scale) + MEAN_LOG),
            "variance_log": Moment(lambda scale: torch.full_like(scale, math.pi**2 / 8)),
            "mean_inverse": INFINITE,
            "mean_excess": Moment(mean_excess),
            "log_mean_power": Moment(log_mean_power),
            "log_laplace": Moment(log_laplace),
        },
        cross_entropy=cross_entropy,
        renyi=renyi,
        line=scale_line(
            log_density_at,
            reach=(40.0, 2.3),
            index=(1.0, math.inf),
            growth=(0.0, 2.0),
            decay=(None, lambda scale: 0.5 / scale / scale),
        ),
    )
)


def partials(p: Parameters, q: Parameters) -> tuple[Tensor, ...]:
    """Derivatives by p's scale, then q's."""
    v = squared_ratio_minus_one(p["scale"], q["scale"])
    return v / p["scale"], -v / q["scale"]


@formula(
    half_normal,
    half_normal,
    cases=[
        Case({"scale": 2.0}, {"scale": 1.0}, 0.80685281944005469058),
        Case({"scale": 0.01000001}, {"scale": 0.01}, 9.9999966665503902077e-13),
    ],
    reference="as Normal || Normal with equal loc: both densities double",
    replaces="torch's float32 scale ratios below 1e-23 give a false inf, near ones lose digits",
    partials=partials,
)
def kl_half_normal_half_normal(p: Parameters, q: Parameters) -> Tensor:
    """2 KL(HalfNormal(s) || HalfNormal(t)) = v - log(1 + v), v = (s/t)^2 - 1."""
    v = squared_ratio_minus_one(p["scale"], q["scale"])
    return 0.5 * minus_log1pmx_of_log(v, 2 * torch.log(p["scale"] / q["scale"]))
