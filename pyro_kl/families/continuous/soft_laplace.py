"""SoftLaplace(loc, scale): the hyperbolic secant distribution."""

from __future__ import annotations

import math

import torch
from pyro.distributions import SoftLaplace
from torch import Tensor
from torch.nn.functional import logsigmoid

from ...registry.family import Moment, location_scale
from ...registry.line import Point, location_scale_line
from ...registry.register import declare


def log_laplace(t: Tensor, /, loc: Tensor, scale: Tensor) -> Tensor:
    """Log E exp(-t x) = -t loc - log cos(pi t s / 2), for t < 1 / s."""
    return -t * loc - torch.log(torch.cos(0.5 * math.pi * t * scale))


def log_density_at(point: Point, loc: Tensor, scale: Tensor) -> Tensor:
    z = 2 * (point.x - loc) / scale
    return math.log(2 / math.pi) - torch.log(scale) + 0.5 * (logsigmoid(z) + logsigmoid(-z))


soft_laplace = declare(
    location_scale(
        SoftLaplace,
        density="1 / (pi * scale * cosh(z))",
        reference="Johnson, Kotz & Balakrishnan (1995), sec. 23.11 (hyperbolic secant)",
        entropy=lambda loc, scale: torch.log(2 * math.pi * scale),
        moments={
            "mean": Moment(lambda loc, scale: loc),
            "variance": Moment(lambda loc, scale: (0.5 * math.pi * scale) ** 2),
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
