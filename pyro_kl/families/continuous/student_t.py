"""StudentT(df, loc, scale)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import StudentT

from ...numerics.autograd.custom import with_partials
from ...numerics.special.gamma import trigamma
from ...numerics.special.incomplete import student_mean_excess
from ...registry.family import INFINITE, REAL, Family, Moment, above
from ...registry.line import Distance, Line, Point, sinh_line
from ...registry.register import declare

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)

# log Gamma(x + 1/2) - log Gamma(x) - log(x)/2 = sum_k c_k x^(1 - 2k): from Stirling's series at
# both (Tricomi & Erdelyi 1951). Eight terms leave less than 1e-17 from 16 on.
_GAP = (
    -1 / 8,
    1 / 192,
    -1 / 640,
    17 / 14336,
    -31 / 18432,
    691 / 180224,
    -5461 / 425984,
    929569 / 15728640,
)
_GAP_FROM = 16.0


def _halves(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    large = x >= _GAP_FROM
    return large, torch.where(large, x, _GAP_FROM), torch.where(large, 1.0, x)


def _gap_curvature(x: Tensor) -> Tensor:
    large, big, little = _halves(x)
    inverse = 1 / big
    series = torch.zeros_like(x)
    for k in range(len(_GAP), 0, -1):
        series = series * inverse * inverse + (2 * k - 1) * 2 * k * _GAP[k - 1]
    direct = trigamma(little + 0.5) - trigamma(little) + 0.5 / little**2
    return torch.where(large, series * inverse**3, direct)


@with_partials(lambda x: (_gap_curvature(x),))
def gamma_gap_slope(x: Tensor) -> Tensor:
    """The derivative of `gamma_gap`."""
    large, big, little = _halves(x)
    inverse = 1 / big
    series = torch.zeros_like(x)
    for k in range(len(_GAP), 0, -1):
        series = series * inverse * inverse - (2 * k - 1) * _GAP[k - 1]
    direct = torch.digamma(little + 0.5) - torch.digamma(little) - 0.5 / little
    return torch.where(large, series * inverse**2, direct)


@with_partials(lambda x: (gamma_gap_slope(x),))
def gamma_gap(x: Tensor) -> Tensor:
    """Log Gamma(x + 1/2) - log Gamma(x) - log(x)/2: a t's constant without a normal's."""
    large, big, little = _halves(x)
    inverse = 1 / big
    series = torch.zeros_like(x)
    for c in reversed(_GAP):
        series = series * inverse * inverse + c
    direct = torch.lgamma(little + 0.5) - torch.lgamma(little) - 0.5 * torch.log(little)
    return torch.where(large, series * inverse, direct)


def minus_log_normaliser(df: Tensor, scale: Tensor) -> Tensor:
    """-log of the density at loc."""
    return torch.log(scale) + HALF_LOG_TAU - gamma_gap(0.5 * df)


def entropy(df: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    # E log(1 + z^2/df) = psi((df + 1)/2) - psi(df/2), which is 1/df + the slope of the gap
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
        examples=(
            {"df": 5.0, "loc": 0.0, "scale": 1.0},
            {"df": 1.5, "loc": 1.5, "scale": 0.4},
            {"df": 60.0, "loc": -9.0, "scale": 5.0},
        ),
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
