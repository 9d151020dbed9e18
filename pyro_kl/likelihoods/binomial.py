"""Binomial(total_count, logits=eta)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Binomial

from . import softplus
from .likelihood import Expectation, Likelihood, is_count


def expected(y: Tensor, loc: Tensor, scale: Tensor, *, total_count: Tensor) -> Expectation:
    """E log p(y | eta) = y loc - n E softplus(eta) + log of the binomial coefficient."""
    excess, mean, curvature = softplus.expectations(loc, scale)
    coefficient = (
        torch.lgamma(total_count + 1) - torch.lgamma(y + 1) - torch.lgamma(total_count - y + 1)
    )
    value = y * loc - total_count * (loc.clamp(min=0) + excess) + coefficient
    return Expectation(value, y - total_count * mean, total_count * curvature)


def higher(y: Tensor, loc: Tensor, scale: Tensor, *, total_count: Tensor) -> tuple[Tensor, Tensor]:
    third, fourth = softplus.expectations.higher(loc, scale)
    return -total_count * third, -total_count * fourth


def predict(loc: Tensor, scale: Tensor, *, total_count: Tensor) -> Tensor:
    """The mean count: n E sigmoid(eta)."""
    return total_count * softplus.expectations(loc, scale)[1]


def error(y: Tensor, loc: Tensor, scale: Tensor, *, total_count: Tensor) -> Tensor:
    return total_count * softplus.remainder(scale)


def is_possible(y: Tensor, loc: Tensor, *, total_count: Tensor) -> Tensor:
    return is_count(y, loc) & (y <= total_count)


def log_likelihood(mp: Any, y: Any, eta: Any, *, total_count: Any) -> Any:
    n = total_count
    return mp.log(mp.binomial(n, y)) + y * eta - n * mp.log1p(mp.exp(eta))


BINOMIAL = Likelihood(
    name="binomial",
    distribution=Binomial,
    link="logit",
    method="quadrature",
    reference="n times that of bernoulli, derived in the docstring of `expected`",
    expected=expected,
    higher=higher,
    predict=predict,
    error=error,
    is_possible=is_possible,
    possible="0, 1, ..., total_count",
    log_likelihood=log_likelihood,
    examples=({"y": 3.0, "total_count": 10.0}, {"y": 400.0, "total_count": 400.0}),
    parameters=("total_count",),
)
