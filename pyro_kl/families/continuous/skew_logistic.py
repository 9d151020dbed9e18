"""SkewLogistic(loc, scale, asymmetry): its CDF is a power of a Logistic's."""

from __future__ import annotations

import math

import torch
from pyro.distributions import SkewLogistic
from torch import Tensor

from ...numerics.special.gamma import EULER_GAMMA, trigamma
from ...registry.family import REAL, Family, Moment
from ...registry.line import Line, Point, from_line, softplus
from ...registry.register import declare


def entropy(loc: Tensor, scale: Tensor, asymmetry: Tensor) -> Tensor:
    a = asymmetry
    return torch.log(scale / a) + torch.digamma(a) + EULER_GAMMA + 1 + 1 / a


def mean(loc: Tensor, scale: Tensor, asymmetry: Tensor) -> Tensor:
    return loc + scale * (torch.digamma(asymmetry) + EULER_GAMMA)


def variance(loc: Tensor, scale: Tensor, asymmetry: Tensor) -> Tensor:
    return scale**2 * (trigamma(asymmetry) + math.pi**2 / 6)


def log_laplace(t: Tensor, /, loc: Tensor, scale: Tensor, asymmetry: Tensor) -> Tensor:
    """Log E exp(-t x), for t s < asymmetry."""
    a, ts = asymmetry, t * scale
    return -t * loc + torch.lgamma(a - ts) + torch.lgamma(1 + ts) - torch.lgamma(a)


def log_density_at(point: Point, loc: Tensor, scale: Tensor, asymmetry: Tensor) -> Tensor:
    z = (point.x - loc) / scale
    return torch.log(asymmetry / scale) - z - (asymmetry + 1) * softplus(-z)


skew_logistic = declare(
    Family(
        SkewLogistic,
        parameters=("loc", "scale", "asymmetry"),
        support=REAL,
        density="asymmetry * exp(-z) / (scale * (1 + exp(-z))**(asymmetry + 1))",
        examples=((0.0, 1.0, 1.5), (1.0, 0.4, 0.6)),
        reference="Johnson, Kotz & Balakrishnan (1995), ch. 23 (type I generalised logistic)",
        entropy=entropy,
        moments={
            "mean": Moment(mean),
            "variance": Moment(variance),
            "log_laplace": Moment(
                log_laplace,
                argument_below=lambda loc, scale, asymmetry: asymmetry / scale,
                below="p.asymmetry / p.scale",
            ),
        },
        line=Line(
            log_density_at,
            at=from_line,
            place=lambda x, **_: x,
            centre=mean,
            width=lambda **distribution: torch.sqrt(variance(**distribution)),
            bend=lambda loc, scale, asymmetry: (loc, scale),
            growth=(1.0, 1.0),
            rate=(
                lambda loc, scale, asymmetry: asymmetry / scale,
                lambda loc, scale, asymmetry: 1 / scale,
            ),
        ),
    )
)
