"""Kumaraswamy(concentration1, concentration0): a power of a Beta(1, concentration0)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Kumaraswamy

from ...numerics.special.gamma import EULER_GAMMA, trigamma
from ...numerics.special.logarithms import log1mexp
from ...registry.family import UNIT_INTERVAL, Family, Moment, above
from ...registry.line import Line, Point
from ...registry.register import declare
from .beta import POWERS


def _harmonic(b: Tensor) -> Tensor:
    return torch.digamma(b + 1) + EULER_GAMMA


def entropy(concentration1: Tensor, concentration0: Tensor) -> Tensor:
    a, b = concentration1, concentration0
    return 1 - 1 / b + (1 - 1 / a) * _harmonic(b) - torch.log(a) - torch.log(b)


def log_mean_power(k: Tensor, /, concentration1: Tensor, concentration0: Tensor) -> Tensor:
    """Log E x^k."""
    r, b = 1 + k / concentration1, concentration0
    return torch.lgamma(r) + torch.lgamma(1 + b) - torch.lgamma(r + b)


def mean(concentration1: Tensor, concentration0: Tensor) -> Tensor:
    one = torch.ones_like(concentration1)
    return torch.exp(log_mean_power(one, concentration1, concentration0))


def variance(concentration1: Tensor, concentration0: Tensor) -> Tensor:
    one = torch.ones_like(concentration1)
    first = log_mean_power(one, concentration1, concentration0)
    second = log_mean_power(2 * one, concentration1, concentration0)
    return torch.exp(2 * first) * torch.expm1(second - 2 * first)


def mean_inverse(concentration1: Tensor, concentration0: Tensor) -> Tensor:
    minus = -torch.ones_like(concentration1)
    return torch.exp(log_mean_power(minus, concentration1, concentration0))


def mean_log(concentration1: Tensor, concentration0: Tensor) -> Tensor:
    return -_harmonic(concentration0) / concentration1


def variance_log(concentration1: Tensor, concentration0: Tensor) -> Tensor:
    return (math.pi**2 / 6 - trigamma(1 + concentration0)) / concentration1**2


def log_density_at(point: Point, concentration1: Tensor, concentration0: Tensor) -> Tensor:
    log_x, log_rest = point.log_unit()
    a, b = concentration1, concentration0
    # log(1 - x^a) from 1 - x where x is next to 1
    tiny = log_rest < -36
    inside = log1mexp(a * torch.where(tiny, -1.0, log_x))
    power = torch.where(tiny, torch.log(a) + log_rest, inside)
    return torch.log(a * b) + (a - 1) * log_x + (b - 1) * power


def at(y: Tensor, concentration1: Tensor, concentration0: Tensor) -> Point:
    """1 - x^a = exp(-e / b), with e = exp(y), a standard exponential variable."""
    r = torch.exp(y) / concentration0
    log_power = log1mexp(-r)
    log_x = log_power / concentration1
    tiny = r > 36
    inside = log1mexp(torch.where(tiny, -1.0, log_x))
    log_rest = torch.where(tiny, -r - torch.log(concentration1), inside)
    slope = log_x - r - log_power + y - torch.log(concentration1 * concentration0)
    return Point(torch.exp(log_x), slope, 0.0, log_x, 1.0, log_rest)


def place(x: Tensor, concentration1: Tensor, concentration0: Tensor) -> Tensor:
    return torch.log(-concentration0 * log1mexp(concentration1 * torch.log(x)))


kumaraswamy = declare(
    Family(
        Kumaraswamy,
        parameters=("concentration1", "concentration0"),
        support=UNIT_INTERVAL,
        density="concentration1 * concentration0 * x**(concentration1 - 1) * (1 - "
        "x**concentration1)**(concentration0 - 1)",
        examples=((2.0, 3.0), (0.6, 0.7), (12.0, 5.0)),
        reference="Jones (2009), Statistical Methodology 6",
        entropy=entropy,
        moments={
            "mean": Moment(mean),
            "variance": Moment(variance),
            "mean_log": Moment(mean_log),
            "variance_log": Moment(variance_log),
            "mean_inverse": Moment(mean_inverse, finite=above(concentration1=1)),
            "log_mean_power": Moment(log_mean_power),
        },
        line=Line(
            log_density_at,
            at=at,
            place=place,
            centre=lambda concentration1, concentration0: torch.zeros_like(concentration1),
            width=lambda concentration1, concentration0: torch.ones_like(concentration1),
            reach=(40.0, 3.8),
            standard={"concentration1": 1.0, "concentration0": 1.0},
            index=POWERS,
            log_tail=True,
        ),
    )
)
