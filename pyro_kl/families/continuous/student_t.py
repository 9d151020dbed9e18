"""StudentT(df, loc, scale)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import StudentT

from ...numerics.special.gamma import gamma_gap, gamma_gap_slope
from ...numerics.special.incomplete import student_mean_excess
from ...numerics.special.logarithms import HALF_LOG_TAU
from ...registry.family import INFINITE, REAL, Family, Moment, above
from ...registry.line import Distance, Line, Point, sinh_line
from ...registry.register import declare


def minus_log_normaliser(df: Tensor, scale: Tensor) -> Tensor:
    """Minus the log density at loc."""
    return torch.log(scale) + HALF_LOG_TAU - gamma_gap(0.5 * df)


def entropy(df: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    # E log(1 + z^2 / df) = psi((df + 1) / 2) - psi(df / 2) = 1 / df + gamma_gap_slope(df / 2)
    tail = 0.5 * (1 + 1 / df) + 0.5 * (df + 1) * gamma_gap_slope(0.5 * df)
    return minus_log_normaliser(df, scale) + tail


def variance(df: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return scale**2 * (df / (df - 2))


def mean_excess(m: Tensor, /, df: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """E (x - m)+, for df > 1."""
    top = torch.exp(-minus_log_normaliser(df, torch.ones_like(df)))
    return scale * student_mean_excess((m - loc) / scale, df, top)


def log_density_at(point: Point, df: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    tail = 0.5 * (df + 1) * point.log1p_square(loc, scale * torch.sqrt(df))
    return -minus_log_normaliser(df, scale) - tail


def at(y: Tensor, df: Tensor, loc: Tensor, scale: Tensor) -> Point:
    return sinh_line(y, loc, scale * torch.sqrt(df))


def tail_index(df: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return df


def distance(df: Tensor, loc: Tensor, scale: Tensor) -> Distance:
    """E sqrt(r^2 + (x - loc)^2) is r B(1/2, (df - 1)/2) / B(1/2, df/2), for df > 1."""
    x, radius = 0.5 * (df - 1), scale * torch.sqrt(df)
    ratio = torch.exp(gamma_gap(x + 0.5) - gamma_gap(x)) * torch.sqrt(1 + 0.5 / x)
    return Distance(loc, radius, radius * ratio)


student_t = declare(
    Family(
        StudentT,
        parameters=("df", "loc", "scale"),
        support=REAL,
        density="gamma((df + 1) / 2) / (gamma(df / 2) * sqrt(pi * df) * scale) * (1 + z**2 / "
        "df)**(-((df + 1) / 2))",
        examples=((5.0, 0.0, 1.0), (1.5, 1.5, 0.4), (60.0, -9.0, 5.0)),
        reference="Johnson, Kotz & Balakrishnan (1995), ch. 28",
        entropy=entropy,
        moments={
            "mean": Moment(lambda df, loc, scale: loc, finite=above(df=1)),
            "variance": Moment(variance, finite=above(df=2)),
            "mean_excess": Moment(mean_excess, finite=above(df=1)),
            "log_laplace": INFINITE,
        },
        line=Line(
            log_density_at,
            at=at,
            place=lambda x, df, loc, scale: torch.asinh((x - loc) / (scale * torch.sqrt(df))),
            centre=lambda df, loc, scale: torch.zeros_like(df),
            width=lambda df, loc, scale: torch.sqrt(1 / df + 1 / df**2),
            bend=lambda df, loc, scale: (torch.zeros_like(df), torch.rsqrt(1 + df)),
            index=(tail_index, tail_index),
            distance=distance,
        ),
    )
)
