"""Divergences set against samples, and those that only samples know."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import (
    Gamma,
    LogNormal,
    MultivariateNormal,
    Normal,
    Weibull,
)

import pyro_kl

from .making import number

pytestmark = pytest.mark.usefixtures("nothing_warned", "double")


def normal_in(dimension, seed):
    torch.manual_seed(seed)
    factor = torch.randn(dimension, dimension)
    covariance = factor @ factor.mT / dimension + torch.eye(dimension)
    return MultivariateNormal(torch.randn(dimension), covariance)


def test_shannon_of_vectors_is_sampled_where_that_is_allowed():
    p, q = normal_in(2, 0), normal_in(2, 1)
    with pytest.raises(NotImplementedError, match="Jensen-Shannon"):
        pyro_kl.jensen_shannon(p, q)
    found = pyro_kl.jensen_shannon(p, q, num_samples=20_000)
    assert 0 < found.standard_error < 0.01
    # of two numbers, one of which has the same distribution in both
    line = [MultivariateNormal(number([m, 0.0]), torch.eye(2)) for m in (0.0, 1.0)]
    exact = pyro_kl.jensen_shannon(*(Normal(number(m), number(1.0)) for m in (0.0, 1.0)))
    found = pyro_kl.jensen_shannon(*line, num_samples=20_000)
    assert abs(found.value - exact.value) < 4.5 * found.standard_error


OTHERS = [
    {"divergence": "renyi", "alpha": 0.3},
    {"divergence": "renyi", "alpha": 0.5},
    {"divergence": "renyi", "alpha": 1.5},
    {"divergence": "jensen-shannon"},
    {"divergence": "jeffreys"},
    {"divergence": "cross-entropy"},
]


@pytest.mark.parametrize("which", OTHERS)
def test_compare(which):
    comparison = pyro_kl.compare(
        Gamma(number(2.0), number(1.0)), Weibull(number(2.0), number(0.9)), 20_000, **which
    )
    assert abs(comparison.z_score) < 4.5
    assert comparison.standard_error < 0.05
    assert "sampled" in str(comparison)


def test_samples_do_not_see_an_infinite_mean():
    comparison = pyro_kl.compare(
        Gamma(number(2.0), number(1.0)), LogNormal(number(0.0), number(1.0)), 1000,
        divergence="renyi", alpha=1.1,
    )  # fmt: skip
    assert comparison.value == math.inf
    assert comparison.z_score.isnan()


def test_compare_refuses_what_it_does_not_know():
    p, q = Normal(number(0.0), number(1.0)), Normal(number(1.0), number(1.0))
    with pytest.raises(ValueError, match="divergence must be one of"):
        pyro_kl.compare(p, q, divergence="hellinger")
    with pytest.raises(ValueError, match="alpha is the order"):
        pyro_kl.compare(p, q, divergence="renyi")
    with pytest.raises(ValueError, match="alpha is the order"):
        pyro_kl.compare(p, q, alpha=2.0)
