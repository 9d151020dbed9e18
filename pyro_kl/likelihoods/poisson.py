"""Poisson(rate=exp(eta))."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Poisson

from .likelihood import Expectation, Likelihood, is_count, no_error


def predict(loc: Tensor, scale: Tensor) -> Tensor:
    """The mean of a LogNormal."""
    return torch.exp(loc + scale.square() / 2)


def expected(y: Tensor, loc: Tensor, scale: Tensor) -> Expectation:
    """E log p(y | eta) = y loc - E exp(eta) - log y!"""
    rate = predict(loc, scale)
    value = (y * loc).sub_(rate).sub_(torch.lgamma(y + 1))
    return Expectation(value, y - rate, rate)


def higher(y: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """All derivatives from the second on are minus the rate."""
    third = -predict(loc, scale)
    return third, third


def log_likelihood(mp: Any, y: Any, eta: Any) -> Any:
    return y * eta - mp.exp(eta) - mp.loggamma(y + 1)


POISSON = Likelihood(
    name="poisson",
    distribution=Poisson,
    link="log",
    method="closed form",
    reference="derived in the docstring of `expected`, by the mean of a LogNormal",
    expected=expected,
    higher=higher,
    predict=predict,
    error=no_error,
    is_possible=is_count,
    possible="0, 1, 2, ...",
    log_likelihood=log_likelihood,
    examples=({"y": 0.0}, {"y": 3.0}, {"y": 250.0}),
)
