"""NegativeBinomial(total_count, logits=eta), in torch's parametrisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import NegativeBinomial

from . import softplus
from .likelihood import Expectation, Likelihood, is_count


def expected(y: Tensor, loc: Tensor, scale: Tensor, *, total_count: Tensor) -> Expectation:
    """E log p(y | eta) = y loc - (r + y) E softplus(eta) + log Gamma(r + y) / (Gamma(r) y!)."""
    excess, mean, curvature = softplus.expectations(loc, scale)
    n = total_count + y
    coefficient = torch.lgamma(n) - torch.lgamma(total_count) - torch.lgamma(y + 1)
    value = y * loc - n * (loc.clamp(min=0) + excess) + coefficient
    return Expectation(value, y - n * mean, n * curvature)


def higher(y: Tensor, loc: Tensor, scale: Tensor, *, total_count: Tensor) -> tuple[Tensor, Tensor]:
    third, fourth = softplus.expectations.higher(loc, scale)
    n = total_count + y
    return -n * third, -n * fourth


def predict(loc: Tensor, scale: Tensor, *, total_count: Tensor) -> Tensor:
    """The mean count: r times the mean of a LogNormal."""
    return total_count * torch.exp(loc + scale.square() / 2)


def error(y: Tensor, loc: Tensor, scale: Tensor, *, total_count: Tensor) -> Tensor:
    return (total_count + y) * softplus.remainder(scale)


def log_likelihood(mp: Any, y: Any, eta: Any, *, total_count: Any) -> Any:
    r = total_count
    coefficient = mp.loggamma(r + y) - mp.loggamma(r) - mp.loggamma(y + 1)
    return coefficient + y * eta - (r + y) * mp.log1p(mp.exp(eta))


NEGATIVE_BINOMIAL = Likelihood(
    name="negative binomial",
    distribution=NegativeBinomial,
    link="logit",
    method="quadrature",
    reference="r + y times that of bernoulli, derived in the docstring of `expected`",
    expected=expected,
    higher=higher,
    predict=predict,
    error=error,
    is_possible=is_count,
    possible="0, 1, 2, ...",
    log_likelihood=log_likelihood,
    examples=({"y": 0.0, "total_count": 1.5}, {"y": 12.0, "total_count": 4.0}),
    parameters=("total_count",),
)
