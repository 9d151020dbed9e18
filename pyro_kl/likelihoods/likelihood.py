"""The declaration of a likelihood: what a Normal predictor needs of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution


@dataclass(frozen=True)
class Expectation:
    """The expected log likelihood of rows, and its derivatives, all of the shape of `loc`.

    Attributes:
        value: E log p(y | eta) for eta ~ Normal(loc, scale^2), in nats.
        slope: the derivative of `value` in loc.
        curvature: minus the second derivative of `value` in loc, which is also -2 times its
            derivative in scale^2 (Bonnet 1964, Price 1958).
    """

    value: Tensor
    slope: Tensor
    curvature: Tensor


@dataclass(frozen=True)
class Likelihood:
    """A likelihood of one number per row, whose linear predictor is Normal.

    All functions take tensors of the rows, of one shape, and the likelihood's own parameters by
    keyword, which broadcast with them. They return tensors of the dtype of `loc`. Autograd
    follows them where `loc` or `scale` requires a gradient.

    Args:
        name: the name by which it is asked for.
        distribution: the torch class.
        link: the link function, in a statistician's words.
        method: how `expected` is computed: "closed form", "quadrature" or "bound" (from below).
        reference: where the method can be looked up.
        expected: from `(y, loc, scale, **parameters)` to an `Expectation`.
        higher: from the same arguments to the third and the fourth derivative of the value in
            loc.
        predict: from `(loc, scale, **parameters)` to the mean of the response (a probability, a
            rate), with the predictor integrated out.
        error: from `(y, loc, scale, **parameters)` to a bound of the absolute error of the value
            in float64, in nats, rounding aside; None for a bound from below, whose distance is
            not known.
        is_possible: from `(y, loc, **parameters)` to whether a row can have the value.
        possible: the values that y can have, in words.
        log_likelihood: `log_likelihood(mp, y, eta, **parameters)` as a book writes it, on mpmath
            numbers. Tests integrate it for reference values; no formula uses it.
        examples: values of y and of the parameters, by keyword: tests are made at these.
        parameters: the names of the likelihood's own parameters.
        event_dim: how many dimensions of `loc` belong to one row.
    """

    name: str
    distribution: type[Distribution]
    link: str
    method: str
    reference: str
    expected: Callable[..., Expectation]
    higher: Callable[..., tuple[Tensor, Tensor]]
    predict: Callable[..., Tensor]
    error: Callable[..., Tensor] | None
    is_possible: Callable[..., Tensor]
    possible: str
    log_likelihood: Callable[..., Any]
    examples: tuple[dict[str, float], ...]
    parameters: tuple[str, ...] = ()
    event_dim: int = 0


def no_error(y: Tensor, loc: Tensor, scale: Tensor, **_: Tensor) -> Tensor:
    """`error` of a closed form: rounding alone."""
    return torch.zeros_like(loc)


def is_count(y: Tensor, loc: Tensor, **_: Tensor) -> Tensor:
    """`is_possible` of counts from 0."""
    return (y >= 0) & (y == y.floor()) & torch.isfinite(y)


def is_zero_or_one(y: Tensor, loc: Tensor, **_: Tensor) -> Tensor:
    """`is_possible` of a binary response."""
    return (y == 0) | (y == 1)
