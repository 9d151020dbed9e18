"""HalfCauchy(scale): the absolute value of a Cauchy(0, scale)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import HalfCauchy

from ...numerics.dtypes import Parameters
from ...registry.family import INFINITE, POSITIVE, Family, Moment
from ...registry.line import Point, scale_line, softplus
from ...registry.pair import Case
from ...registry.register import declare, formula


def log_mean_power(k: Tensor, /, scale: Tensor) -> Tensor:
    """Log E x^k, for k < 1."""
    return k * torch.log(scale) - torch.log(torch.cos(0.5 * math.pi * k))


def log_density_at(point: Point, scale: Tensor) -> Tensor:
    log_square = softplus(2 * (point.log_over(0.0) - torch.log(scale)))
    return torch.log(2 / (math.pi * scale)) - log_square


half_cauchy = declare(
    Family(
        HalfCauchy,
        parameters=("scale",),
        support=POSITIVE,
        density="2 / (pi * scale * (1 + (x / scale)**2))",
        examples=({"scale": 1.0}, {"scale": 0.2}, {"scale": 15.0}),
        reference="Johnson, Kotz & Balakrishnan (1994), ch. 16",
        entropy=lambda scale: torch.log(2 * math.pi * scale),
        moments={
            "mean": INFINITE,
            "variance": INFINITE,
            "mean_log": Moment(lambda scale: torch.log(scale)),
            "variance_log": Moment(lambda scale: torch.full_like(scale, math.pi**2 / 4)),
            "mean_inverse": INFINITE,
            "mean_excess": INFINITE,
            "log_mean_power": Moment(
                log_mean_power, argument_below=lambda scale: torch.ones_like(scale), below="1"
            ),
        },
        line=scale_line(log_density_at, index=(1.0, 1.0)),
    )
)


@formula(
    half_cauchy,
    half_cauchy,
    cases=[
        Case({"scale": 1.0}, {"scale": 2.0}, 0.11778303565638345454),
        Case({"scale": 0.1000001}, {"scale": 0.1}, 2.499997499452076978e-13),
    ],
    reference="as Cauchy || Cauchy with equal loc: both densities double",
)
def kl_half_cauchy_half_cauchy(p: Parameters, q: Parameters) -> Tensor:
    """KL(HalfCauchy(s) || HalfCauchy(t)) = log(1 + (s - t)^2 / (4 s t))."""
    d = p["scale"] - q["scale"]
    return torch.log1p(0.25 * (d / p["scale"]) * (d / q["scale"]))
