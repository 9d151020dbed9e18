"""Normal(loc=eta, scale=noise)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal

from .likelihood import Expectation, Likelihood, no_error

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def expected(y: Tensor, loc: Tensor, scale: Tensor, *, noise: Tensor) -> Expectation:
    """E log p(y | eta) = log p(y | loc) - scale^2 / 2 noise^2."""
    residual = y - loc
    curvature = (1 / noise.square()).expand_as(loc)
    squares = residual.square() + scale.square()
    value = -0.5 * squares * curvature - (torch.log(noise) + _HALF_LOG_TWO_PI)
    return Expectation(value, residual * curvature, curvature)


def higher(y: Tensor, loc: Tensor, scale: Tensor, *, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The value is quadratic in loc."""
    zero = torch.zeros_like(loc)
    return zero, zero


def predict(loc: Tensor, scale: Tensor, *, noise: Tensor) -> Tensor:
    return loc


def is_possible(y: Tensor, loc: Tensor, *, noise: Tensor) -> Tensor:
    return torch.isfinite(y)


def log_likelihood(mp: Any, y: Any, eta: Any, *, noise: Any) -> Any:
    return -(((y - eta) / noise) ** 2) / 2 - mp.log(noise) - mp.log(2 * mp.pi) / 2


GAUSSIAN = Likelihood(
    name="gaussian",
    distribution=Normal,
    link="identity",
    method="closed form",
    reference="derived in the docstring of `expected`",
    expected=expected,
    higher=higher,
    predict=predict,
    error=no_error,
    is_possible=is_possible,
    possible="real numbers",
    log_likelihood=log_likelihood,
    examples=({"y": 0.4, "noise": 1.0}, {"y": -7.0, "noise": 0.3}),
    parameters=("noise",),
)
