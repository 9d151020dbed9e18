"""Bernoulli(logits=eta)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributions import Bernoulli

from . import softplus
from .likelihood import Expectation, Likelihood, is_zero_or_one


def expected(y: Tensor, loc: Tensor, scale: Tensor) -> Expectation:
    """E log p(y | eta) = y loc - E softplus(eta)."""
    excess, mean, curvature = softplus.expectations(loc, scale)
    value = (y * loc).sub_(loc.clamp(min=0)).sub_(excess)
    return Expectation(value, y - mean, curvature)


def higher(y: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Minus the third and the fourth derivative of E softplus; y has no part in them."""
    third, fourth = softplus.expectations.higher(loc, scale)
    return -third, -fourth


def predict(loc: Tensor, scale: Tensor) -> Tensor:
    """P(y = 1) = E sigmoid(eta)."""
    return softplus.expectations(loc, scale)[1]


def error(y: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return softplus.remainder(scale)


def log_likelihood(mp: Any, y: Any, eta: Any) -> Any:
    return y * eta - mp.log1p(mp.exp(eta))


BERNOULLI_LOGIT = Likelihood(
    name="bernoulli",
    distribution=Bernoulli,
    link="logit",
    method="quadrature",
    reference="Monahan & Stefanski (1992), Normal scale mixture approximations to F*(z) and "
    "computation of the logistic-normal integral; the constants are of tools/logistic_mixture.py",
    expected=expected,
    higher=higher,
    predict=predict,
    error=error,
    is_possible=is_zero_or_one,
    possible="0 and 1",
    log_likelihood=log_likelihood,
    examples=({"y": 0.0}, {"y": 1.0}),
)
