"""Pareto(scale, alpha): the exponential of an Exponential, from scale upward."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Pareto

from ..family import Family, Moment, Support, above
from ..registry import declare

FROM_SCALE = Support(
    "half-line from scale",
    discrete=False,
    low=lambda scale, alpha: scale,
    high=math.inf,
    above=0.0,
)


def log_density(mp: Any, x: Any, scale: Any, alpha: Any) -> Any:
    if x < scale:
        return -mp.inf
    return mp.log(alpha / scale) - (alpha + 1) * mp.log(x / scale)


def mean(scale: Tensor, alpha: Tensor) -> Tensor:
    return alpha * scale / (alpha - 1)


def variance(scale: Tensor, alpha: Tensor) -> Tensor:
    return alpha * (scale / (alpha - 1)) ** 2 / (alpha - 2)


def mean_excess(m: Tensor, /, scale: Tensor, alpha: Tensor) -> Tensor:
    """E (x - m)+."""
    inside = m > scale
    far = torch.where(inside, m, scale)
    beyond = far / (alpha - 1) * torch.exp(alpha * torch.log(scale / far))
    return torch.where(inside, beyond, alpha * scale / (alpha - 1) - m)


def log_mean_power(k: Tensor, /, scale: Tensor, alpha: Tensor) -> Tensor:
    """Log E x^k, for k < alpha."""
    return k * torch.log(scale) - torch.log1p(-k / alpha)


def cross_entropy(mean_log: Tensor, /, scale: Tensor, alpha: Tensor) -> Tensor:
    return mean_log - torch.log(alpha) + alpha * (mean_log - torch.log(scale))


pareto = declare(
    Family(
        Pareto,
        parameters=("scale", "alpha"),
        support=FROM_SCALE,
        examples=(
            {"scale": 1.0, "alpha": 3.0},
            {"scale": 0.5, "alpha": 1.2},
            {"scale": 4.0, "alpha": 6.0},
        ),
        reference="Johnson, Kotz & Balakrishnan (1994), ch. 20",
        log_density=log_density,
        entropy=lambda scale, alpha: torch.log(scale / alpha) + 1 / alpha + 1,
        moments={
            "mean": Moment(mean, finite=above(alpha=1)),
            "variance": Moment(variance, finite=above(alpha=2)),
            "mean_log": Moment(lambda scale, alpha: torch.log(scale) + 1 / alpha),
            "variance_log": Moment(lambda scale, alpha: 1 / alpha**2),
            "mean_inverse": Moment(lambda scale, alpha: alpha / ((alpha + 1) * scale)),
            "mean_excess": Moment(mean_excess, finite=above(alpha=1)),
            "log_mean_power": Moment(
                log_mean_power, argument_below=lambda scale, alpha: alpha, below="p.alpha"
            ),
        },
        cross_entropy=cross_entropy,
    )
)
