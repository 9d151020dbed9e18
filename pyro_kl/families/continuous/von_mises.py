"""VonMises(loc, concentration), on the angles from -pi to pi."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import VonMises

from ...numerics.dtypes import Parameters
from ...numerics.special.bessel import bregman_log_i0, circular_variance, log_i0e
from ...registry.family import Family, Support
from ...registry.line import Line, Point, interval
from ...registry.register import declare, formula

ANGLES = Support(
    "angles from -pi to pi", discrete=False, low=-math.pi, high=math.pi, period=2 * math.pi
)


def entropy(loc: Tensor, concentration: Tensor) -> Tensor:
    k = concentration
    no_angle = 0.0 * loc  # nan for an infinite angle
    return math.log(2 * math.pi) + log_i0e(k) + k * circular_variance(k) + no_angle


def log_density_at(point: Point, loc: Tensor, concentration: Tensor) -> Tensor:
    drop = 2 * torch.sin(0.5 * (point.x - loc)) ** 2
    return -concentration * drop - math.log(2 * math.pi) - log_i0e(concentration)


def at(y: Tensor, **_: Tensor) -> Point:
    return interval(y, -math.pi, math.pi)


def place(x: Tensor, **_: Tensor) -> Tensor:
    return torch.log((math.pi + x) / (math.pi - x))


def logit_centre(loc: Tensor, concentration: Tensor) -> Tensor:
    """The place of loc, moved to within 3.14 of the circle's middle, where the line is finite."""
    angle = torch.remainder(loc + math.pi, 2 * math.pi) - math.pi
    return place(angle.clamp(-3.14, 3.14))


def geometric_mixture(p: Parameters, q: Parameters, alpha: float) -> Parameters:
    """The natural parameters are the vector of length concentration in the direction of loc."""
    k, m, d = p["concentration"], q["concentration"], p["loc"] - q["loc"]
    # along and across q's direction
    along = m + alpha * ((k - m) - 2 * k * torch.sin(0.5 * d) ** 2)
    across = alpha * k * torch.sin(d)
    return {
        "loc": q["loc"] + torch.atan2(across, along),
        "concentration": torch.hypot(along, across),
    }


von_mises = declare(
    Family(
        VonMises,
        parameters=("loc", "concentration"),
        support=ANGLES,
        density="exp(concentration * cos(x - loc)) / (2 * pi * besseli(0, concentration))",
        examples=((0.0, 1.0), (2.5, 0.1), (-1.0, 40.0)),
        reference="Mardia & Jupp (2000), ch. 3",
        entropy=entropy,
        geometric_mixture=geometric_mixture,
        line=Line(
            log_density_at,
            at=at,
            place=place,
            centre=logit_centre,
            width=lambda loc, concentration: torch.ones_like(loc),
            reach=(48.0, 48.0),
            index=(1.0, 1.0),
            peaked=True,
        ),
    )
)


@formula(
    von_mises,
    von_mises,
    cases=[
        ((0.0, 1.0), (1.0, 3.0), 1.0722266455318832403),
        ((2.5, 100.00001), (2.5, 100.0), 2.5126911767840030283e-15),
        ((3.0, 25.0), (-3.0, 0.01), 2.0086756656998505826),
        ((0.0, 3.0), (0.25, 400.0), 83.008365257981551658),
    ],
    reference="Mardia & Jupp (2000), ch. 3; split derived in the docstring",
)
def kl_von_mises_von_mises(p: Parameters, q: Parameters) -> Tensor:
    """KL(VonMises(m, k) || VonMises(mu, l)), as two terms that are never negative.

    With A = I1(k)/I0(k) = (log I0)'(k),

        KL = [log I0(l) - log I0(k) - (l - k) A] + 2 A l sin^2((m - mu)/2)
    """
    half = torch.sin(0.5 * (p["loc"] - q["loc"]))
    length = 1 - circular_variance(p["concentration"])
    turned = 2 * length * q["concentration"] * half * half
    return bregman_log_i0(p["concentration"], q["concentration"]) + turned
