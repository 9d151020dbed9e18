"""Bernoulli(probs=Phi(eta)), where Phi is the Normal CDF."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli

from . import log_ndtr
from .likelihood import Expectation, Likelihood, is_zero_or_one


def _sign(y: Tensor) -> Tensor:
    """1 for y = 1 and -1 for y = 0: log p(y | eta) = log Phi(sign eta)."""
    return 2 * y - 1


def expected(y: Tensor, loc: Tensor, scale: Tensor) -> Expectation:
    sign = _sign(y)
    value, slope, second = log_ndtr.expectations(sign * loc, scale)
    return Expectation(value, sign * slope, -second)


def higher(y: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    sign = _sign(y)
    third, fourth = log_ndtr.expectations.higher(sign * loc, scale)
    return sign * third, fourth


def predict(loc: Tensor, scale: Tensor) -> Tensor:
    """P(y = 1) = Phi(loc / sqrt(1 + scale^2))."""
    return torch.special.ndtr(loc * torch.rsqrt(1 + scale.square()))


def error(y: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return log_ndtr.remainder(_sign(y) * loc, scale)


def log_likelihood(mp: Any, y: Any, eta: Any) -> Any:
    return mp.log(mp.ncdf(eta if y == 1 else -eta))


BERNOULLI_PROBIT = Likelihood(
    name="bernoulli probit",
    distribution=Bernoulli,
    link="probit",
    method="quadrature",
    reference="Trefethen & Weideman (2014), SIAM Review 56: The exponentially convergent "
    "trapezoidal rule",
    expected=expected,
    higher=higher,
    predict=predict,
    error=error,
    is_possible=is_zero_or_one,
    possible="0 and 1",
    log_likelihood=log_likelihood,
    examples=({"y": 0.0}, {"y": 1.0}),
)
