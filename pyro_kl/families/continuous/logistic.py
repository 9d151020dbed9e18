"""Logistic(loc, scale)."""

from __future__ import annotations

import math

import torch
from pyro.distributions import Logistic
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from ...registry.family import Moment, location_scale
from ...registry.line import Point, location_scale_line
from ...registry.register import declare


def log_laplace(t: Tensor, /, loc: Tensor, scale: Tensor) -> Tensor:
    """Log E exp(-t x) = -t loc - log(sin(pi t s) / (pi t s)), for t < 1 / s."""
    return -t * loc - torch.log(torch.sinc(t * scale))


def log_density_at(point: Point, loc: Tensor, scale: Tensor) -> Tensor:
    z = (point.x - loc) / scale
    return logsigmoid(z) + logsigmoid(-z) - torch.log(scale)


logistic = declare(
    location_scale(
        Logistic,
        density="exp(-z) / (scale * (1 + exp(-z))**2)",
        reference="Johnson, Kotz & Balakrishnan (1995), ch. 23",
        entropy=lambda loc, scale: 2 + torch.log(scale),
        moments={
            "mean": Moment(lambda loc, scale: loc),
            "variance": Moment(lambda loc, scale: (math.pi * scale) ** 2 / 3),
            "mean_excess": Moment(
                lambda m, /, loc, scale: scale * softplus((loc - m) / scale, threshold=60)
            ),
            "log_laplace": Moment(
                log_laplace, argument_below=lambda loc, scale: 1 / scale, below="1 / p.scale"
            ),
        },
        line=location_scale_line(
            log_density_at,
            growth=(1.0, 1.0),
            rate=(lambda loc, scale: 1 / scale, lambda loc, scale: 1 / scale),
        ),
    )
)
