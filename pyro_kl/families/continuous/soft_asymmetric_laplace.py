"""SoftAsymmetricLaplace(loc, scale, asymmetry, softness): an AsymmetricLaplace plus a Normal.

Its entropy and its cross-entropies have no closed form: its pairs are integrals, or infinite
because of the supports. The moments are those of a sum of independent variables. The gradient of
Pyro's own log density is nan in the tails.
"""

from __future__ import annotations

import math

import torch
from pyro.distributions import SoftAsymmetricLaplace
from torch import Tensor

from ...numerics.special.incomplete import log_erfcx
from ...numerics.special.logarithms import logaddexp
from ...registry.family import REAL, Family, Moment
from ...registry.line import Line, Point, from_line
from ...registry.register import declare


def mean(loc: Tensor, scale: Tensor, asymmetry: Tensor, softness: Tensor) -> Tensor:
    return loc + scale / asymmetry - scale * asymmetry


def variance(loc: Tensor, scale: Tensor, asymmetry: Tensor, softness: Tensor) -> Tensor:
    return scale**2 * (asymmetry**2 + 1 / asymmetry**2 + softness**2)


def log_laplace(
    t: Tensor, /, loc: Tensor, scale: Tensor, asymmetry: Tensor, softness: Tensor
) -> Tensor:
    """Log E exp(-t x), for t < 1 / left scale."""
    u = t * scale
    tails = torch.log1p(-u * asymmetry) + torch.log1p(u / asymmetry)
    return -t * loc + 0.5 * (u * softness) ** 2 - tails


def _log_tail(distance: Tensor, length: Tensor, s: Tensor) -> Tensor:
    """Log E exp(-(distance + s z) / length) where distance + s z > 0, z being standard normal."""
    u = s / length - distance / s
    inside = u > 0
    scaled = log_erfcx(torch.where(inside, u, 1.0) / math.sqrt(2))
    near = scaled - math.log(2) - 0.5 * (distance / s) ** 2
    beyond = 0.5 * torch.erfc(torch.where(inside, 0.0, -u) / math.sqrt(2))
    far = torch.log1p(-beyond) - distance / length
    return torch.where(inside, near, far + 0.5 * (s / length) ** 2)


def log_density_at(
    point: Point, loc: Tensor, scale: Tensor, asymmetry: Tensor, softness: Tensor
) -> Tensor:
    left, right, s = scale * asymmetry, scale / asymmetry, scale * softness
    d = point.x - loc
    a, b = _log_tail(d, right, s), _log_tail(-d, left, s)
    return logaddexp(a, b) - torch.log(left + right)


soft_asymmetric_laplace = declare(
    Family(
        SoftAsymmetricLaplace,
        parameters=("loc", "scale", "asymmetry", "softness"),
        support=REAL,
        density="(exp(softness**2 * asymmetry**2 / 2 - asymmetry * z) * erfc((softness * "
        "asymmetry - z / softness) / sqrt(2)) + exp(softness**2 / (2 * asymmetry**2) + "
        "z / asymmetry) * erfc((softness / asymmetry + z / softness) / sqrt(2))) / (2 *"
        " scale * (asymmetry + 1 / asymmetry))",
        examples=((0.0, 1.0, 1.5, 0.5), (1.0, 0.4, 0.7, 2.0), (-3.0, 4.0, 1.0, 1.0)),
        reference="Kotz, Kozubowski & Podgorski (2001), ch. 3, and a Normal",
        moments={
            "mean": Moment(mean),
            "variance": Moment(variance),
            "log_laplace": Moment(
                log_laplace,
                argument_below=lambda loc, scale, asymmetry, softness: 1 / (scale * asymmetry),
                below="1 / p.left_scale",
            ),
        },
        line=Line(
            log_density_at,
            at=from_line,
            place=lambda x, **_: x,
            centre=mean,
            width=lambda **distribution: torch.sqrt(variance(**distribution)),
            bend=lambda loc, scale, asymmetry, softness: (loc, scale * softness),
            growth=(1.0, 1.0),
            rate=(
                lambda loc, scale, asymmetry, softness: 1 / (scale * asymmetry),
                lambda loc, scale, asymmetry, softness: asymmetry / scale,
            ),
        ),
    )
)
