"""GeneralizedPareto(loc, scale, concentration): excesses over a threshold.

With concentration 0 it is an Exponential from loc; a positive one gives a power tail, a negative
one an upper end at loc - scale / concentration. E log x and E 1/x have a closed form for loc = 0
only, so they are not declared.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import GeneralizedPareto

from ...numerics.special.logarithms import log1mexp, log1p_ratio
from ...registry.family import Family, Moment, Support, below
from ...registry.line import Distance, Line, Point, exp_or_inf, softplus
from ...registry.register import declare


def upper_end(loc: Tensor, scale: Tensor, concentration: Tensor) -> Tensor:
    endless = concentration >= 0  # False for nan
    return torch.where(endless, math.inf, loc - scale / torch.where(endless, -1.0, concentration))


FROM_LOC = Support(
    "interval from loc, which ends if the concentration is negative",
    discrete=False,
    low=lambda loc, scale, concentration: loc,
    high=upper_end,
    may_reach_infinity=True,
)


def mean(loc: Tensor, scale: Tensor, concentration: Tensor) -> Tensor:
    return loc + scale / (1 - concentration)


def variance(loc: Tensor, scale: Tensor, concentration: Tensor) -> Tensor:
    return (scale / (1 - concentration)) ** 2 / (1 - 2 * concentration)


def mean_excess(m: Tensor, /, loc: Tensor, scale: Tensor, concentration: Tensor) -> Tensor:
    """E (x - m)+; above m, x is of the same family with a scale 1 + xi z times as large."""
    z = (m - loc) / scale
    inside = (z > 0) & (concentration * z > -1)
    far = torch.where(inside, z, 0.0)
    u = concentration * far
    beyond = scale / (1 - concentration) * (1 + u) * torch.exp(-far * log1p_ratio(u))
    return torch.where(inside, beyond, torch.relu(mean(loc, scale, concentration) - m))


def log_density_at(point: Point, loc: Tensor, scale: Tensor, concentration: Tensor) -> Tensor:
    """With u = xi z, log(1 + u) comes from z, log z or the distance to the end, as u is."""
    xi, log_z = concentration, point.log_over(loc) - torch.log(scale)
    z = torch.exp(log_z.clamp(max=700.0))
    u = xi * z
    middle = u.abs() < 0.5
    log_rest = z * log1p_ratio(torch.where(middle, u, 0.0))
    far_out, towards_end = ~middle & (xi > 0), ~middle & (xi < 0)
    up = torch.where(xi > 0, xi, 1.0)
    beyond = softplus(torch.log(up) + torch.where(far_out, log_z, 0.0)) / up
    down = torch.where(xi < 0, xi, -1.0)
    # inf where there is no end: a finite number could be a node, with nan in its derivative
    end = upper_end(loc, scale, concentration)
    under = torch.where(towards_end, point.log_under(end), 0.0) - torch.log(scale / -down)
    log_rest = torch.where(far_out, beyond, torch.where(towards_end, under / down, log_rest))
    return -torch.log(scale) - (1 + xi) * log_rest


def at(y: Tensor, loc: Tensor, scale: Tensor, concentration: Tensor) -> Point:
    """X = loc + scale (exp(xi e) - 1) / xi, with e = exp(y), a standard exponential variable."""
    e, xi = torch.exp(y), concentration
    u = xi * e
    near = u.abs() < 1e-3
    small = torch.where(near, u, 0.0)
    series = 1 + small / 2 * (1 + small / 3 * (1 + small / 4 * (1 + small / 5)))
    safe = torch.where(near, 1.0, u)
    larger = torch.where(safe > 0, safe, 0.0) + log1mexp(-safe.abs()) - torch.log(safe.abs())
    log_above = torch.log(scale) + y + torch.where(near, torch.log(series), larger)
    down = torch.where(xi < 0, xi, -1.0)
    log_below = torch.where(xi < 0, torch.log(scale / -down) + down * e, math.inf)
    return Point(
        loc + exp_or_inf(log_above),
        torch.log(scale) + u + y,
        loc,
        log_above,
        upper_end(loc, scale, concentration),
        log_below,
        log_above,
    )


def place(x: Tensor, loc: Tensor, scale: Tensor, concentration: Tensor) -> Tensor:
    z = (x - loc) / scale
    return torch.log(z * log1p_ratio(concentration * z))


def tail_index(loc: Tensor, scale: Tensor, concentration: Tensor) -> Tensor:
    """The index of the power tail, or at the finite upper end."""
    return 1 / concentration.abs()


def tail_growth(loc: Tensor, scale: Tensor, concentration: Tensor) -> Tensor:
    """1 where the tail is exponential."""
    return (concentration == 0).to(concentration.dtype)


generalized_pareto = declare(
    Family(
        GeneralizedPareto,
        parameters=("loc", "scale", "concentration"),
        support=FROM_LOC,
        density="(1 + concentration * z)**(-1 / concentration - 1) / scale",
        examples=((0.0, 1.0, 0.25), (0.125, 0.25, -0.5), (-2.0, 3.0, 0.7), (1.0, 2.0, 0.0)),
        reference="Johnson, Kotz & Balakrishnan (1994), ch. 20",
        entropy=lambda loc, scale, concentration: torch.log(scale) + concentration + 1,
        moments={
            "mean": Moment(mean, finite=below(concentration=1)),
            "variance": Moment(variance, finite=below(concentration=0.5)),
            "mean_excess": Moment(mean_excess, finite=below(concentration=1)),
        },
        line=Line(
            log_density_at,
            at=at,
            place=place,
            centre=lambda loc, scale, concentration: torch.zeros_like(loc),
            width=lambda loc, scale, concentration: torch.ones_like(loc),
            reach=(40.0, 3.8),
            standard={"loc": 0.0, "scale": 1.0, "concentration": 0.0},
            index=(1.0, tail_index),
            growth=(0.0, tail_growth),
            decay=(None, lambda loc, scale, concentration: 1 / scale),
            log_tail=True,
            distance=lambda loc, scale, concentration: Distance(
                loc, None, scale / (1 - concentration)
            ),
        ),
    )
)
