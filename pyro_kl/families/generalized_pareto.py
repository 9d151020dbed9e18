"""GeneralizedPareto(loc, scale, concentration): excesses over a threshold.

A concentration of 0 is an Exponential from loc, a positive one a Pareto's tail, a negative one an
end at loc - scale / concentration. Only loc = 0 would leave E log x and E 1/x in closed form.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import GeneralizedPareto

from ..family import Family, Moment, Support, below
from ..registry import declare
from ..special import log1p_minus, with_partials


def log_density(mp: Any, x: Any, loc: Any, scale: Any, concentration: Any) -> Any:
    z, xi = (x - loc) / scale, concentration
    if z < 0 or 1 + xi * z <= 0:
        return -mp.inf
    tail = z if xi == 0 else (1 + 1 / xi) * mp.log1p(xi * z)
    return -mp.log(scale) - tail


def upper_end(loc: Tensor, scale: Tensor, concentration: Tensor) -> Tensor:
    ends = concentration < 0
    return torch.where(ends, loc - scale / torch.where(ends, concentration, -1.0), math.inf)


FROM_LOC = Support(
    "interval from loc, which ends if the concentration is negative",
    discrete=False,
    low=lambda loc, scale, concentration: loc,
    high=upper_end,
    may_reach_infinity=True,
)


def _log1p_ratio_slope(u: Tensor) -> Tensor:
    near = u.abs() < 1e-4
    small, far = torch.where(near, u, 0.0), torch.where(near, 1.0, u)
    series = -0.5 + small * (2 / 3 - small * (3 / 4 - small * (4 / 5)))
    return torch.where(near, series, log1p_minus(-far / (1 + far)) / far**2)


@with_partials(lambda u: (_log1p_ratio_slope(u),))
def log1p_ratio(u: Tensor) -> Tensor:
    """log(1 + u) / u, also at 0."""
    near = u.abs() < 1e-4
    small, far = torch.where(near, u, 0.0), torch.where(near, 1.0, u)
    series = 1 - small * (1 / 2 - small * (1 / 3 - small * (1 / 4 - small * (1 / 5))))
    return torch.where(near, series, torch.log1p(far) / far)


def mean(loc: Tensor, scale: Tensor, concentration: Tensor) -> Tensor:
    return loc + scale / (1 - concentration)


def variance(loc: Tensor, scale: Tensor, concentration: Tensor) -> Tensor:
    return (scale / (1 - concentration)) ** 2 / (1 - 2 * concentration)


def mean_excess(m: Tensor, /, loc: Tensor, scale: Tensor, concentration: Tensor) -> Tensor:
    """E (x - m)+; above m the law is of the same family, its scale 1 + xi z as large."""
    z = (m - loc) / scale
    inside = (z > 0) & (concentration * z > -1)
    far = torch.where(inside, z, 0.0)
    u = concentration * far
    beyond = scale / (1 - concentration) * (1 + u) * torch.exp(-far * log1p_ratio(u))
    return torch.where(inside, beyond, torch.relu(mean(loc, scale, concentration) - m))


generalized_pareto = declare(
    Family(
        GeneralizedPareto,
        parameters=("loc", "scale", "concentration"),
        support=FROM_LOC,
        examples=(
            {"loc": 0.0, "scale": 1.0, "concentration": 0.25},
            {"loc": 0.125, "scale": 0.25, "concentration": -0.5},
            {"loc": -2.0, "scale": 3.0, "concentration": 0.7},
            {"loc": 1.0, "scale": 2.0, "concentration": 0.0},
        ),
        reference="Johnson, Kotz & Balakrishnan (1994), ch. 20",
        log_density=log_density,
        entropy=lambda loc, scale, concentration: torch.log(scale) + concentration + 1,
        moments={
            "mean": Moment(mean, finite=below(concentration=1)),
            "variance": Moment(variance, finite=below(concentration=0.5)),
            "mean_excess": Moment(mean_excess, finite=below(concentration=1)),
        },
    )
)
