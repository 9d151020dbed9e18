"""AsymmetricLaplace(loc, scale, asymmetry): two exponentials back to back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import AsymmetricLaplace
from torch import Tensor

from ..family import REAL, Family, Moment, Parameters
from ..registry import declare


def read(p: AsymmetricLaplace) -> Parameters:
    """Both scales: Pyro's asymmetry multiplies the left one and divides the right one."""
    return {"loc": p.loc, "left": p.left_scale, "right": p.right_scale}


def log_density(mp: Any, x: Any, loc: Any, scale: Any, asymmetry: Any) -> Any:
    left, right = scale * asymmetry, scale / asymmetry
    distance = (loc - x) / left if x < loc else (x - loc) / right
    return -distance - mp.log(left + right)


def mean_excess(m: Tensor, /, loc: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """E (x - m)+."""
    total, d = left + right, loc - m
    beyond = right / total * right * torch.exp(-torch.relu(-d) / right)
    before = d + (right - left) + left / total * left * torch.exp(-torch.relu(d) / left)
    return torch.where(d <= 0, beyond, before)


def log_laplace(t: Tensor, /, loc: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Log E exp(-t x), for t < 1 / left."""
    return -t * loc - torch.log1p(-t * left) - torch.log1p(t * right)


def cross_entropy(
    mean: Tensor,
    mean_excess: Callable[[Tensor], Tensor],
    /,
    loc: Tensor,
    left: Tensor,
    right: Tensor,
) -> Tensor:
    above = mean_excess(loc)
    return torch.log(left + right) + above / right + (above - (mean - loc)) / left


asymmetric_laplace = declare(
    Family(
        AsymmetricLaplace,
        parameters=("loc", "left", "right"),
        support=REAL,
        examples=(
            {"loc": 0.0, "scale": 1.0, "asymmetry": 1.5},
            {"loc": 1.0, "scale": 0.4, "asymmetry": 0.7},
            {"loc": -3.0, "scale": 4.0, "asymmetry": 1.0},
        ),
        reference="Kotz, Kozubowski & Podgorski (2001), ch. 3",
        log_density=log_density,
        kinks=lambda loc, **_: (loc,),
        entropy=lambda loc, left, right: 1 + torch.log(left + right),
        moments={
            "mean": Moment(lambda loc, left, right: loc + right - left),
            "variance": Moment(lambda loc, left, right: left**2 + right**2),
            "mean_excess": Moment(mean_excess),
            "log_laplace": Moment(
                log_laplace,
                argument_below=lambda loc, left, right: 1 / left,
                below="1 / p.left_scale",
            ),
        },
        cross_entropy=cross_entropy,
        read=read,
        safe={"loc": 0.0, "left": 1.0, "right": 1.0},
    )
)
