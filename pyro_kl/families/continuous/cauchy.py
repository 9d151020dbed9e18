"""Cauchy(loc, scale), which has no moments."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Cauchy

from ...numerics.dtypes import Parameters
from ...registry.family import INFINITE, location_scale
from ...registry.line import Line, Point, sinh_line
from ...registry.register import declare, formula


def log_density_at(point: Point, loc: Tensor, scale: Tensor) -> Tensor:
    return -torch.log(math.pi * scale) - point.log1p_square(loc, scale)


cauchy = declare(
    location_scale(
        Cauchy,
        density="1 / (pi * scale * (1 + z**2))",
        reference="Johnson, Kotz & Balakrishnan (1994), ch. 16",
        entropy=lambda loc, scale: torch.log(4 * math.pi * scale),
        moments={
            "mean": INFINITE,
            "variance": INFINITE,
            "mean_excess": INFINITE,
            "log_laplace": INFINITE,
        },
        line=Line(
            log_density_at,
            at=sinh_line,
            place=lambda x, loc, scale: torch.asinh((x - loc) / scale),
            centre=lambda loc, scale: torch.zeros_like(loc),
            width=lambda loc, scale: torch.ones_like(scale),
            standard={"loc": 0.0, "scale": 1.0},
            index=(1.0, 1.0),
        ),
    )
)


def _quarter(p: Parameters, q: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    """(s - t)/t, (m - mu)/t and [(s - t)^2 + (m - mu)^2]/(4 s t)."""
    s, t = p["scale"], q["scale"]
    ds, dm = s - t, p["loc"] - q["loc"]
    u, d = ds / t, dm / t
    # each square is divided on its own: the product of two large scales may overflow
    return u, d, 0.25 * (ds / s * u + dm / s * d)


def partials(p: Parameters, q: Parameters) -> tuple[Tensor, ...]:
    """Derivatives by p's loc and scale, then q's."""
    s, t = p["scale"], q["scale"]
    u, d, a = _quarter(p, q)
    whole = 1 + a
    by_loc = 0.5 * d / s / whole
    return by_loc, (0.5 * u - a) / s / whole, -by_loc, -(0.5 * ((s - t) / s) + a) / t / whole


@formula(
    cauchy,
    cauchy,
    cases=[
        ((1.0, 1.0), (0.0, 2.0), 0.22314355131420975577),
        ((1.0, 1e6), (0.0, 1e6), 2.4999999999996875e-13),
        ((5.0, 0.1000001), (5.0, 0.1), 2.499997499452076978e-13),
    ],
    reference="Chyzak & Nielsen (2019), arXiv:1905.10965, theorem 1",
    replaces="torch takes the log of a ratio close to 1, and overflows in float32",
    partials=partials,
)
def kl_cauchy_cauchy(p: Parameters, q: Parameters) -> Tensor:
    """KL(Cauchy(m, s) || Cauchy(mu, t)) = log(1 + [(s - t)^2 + (m - mu)^2] / (4 s t))."""
    return torch.log1p(_quarter(p, q)[-1])
