"""Entropies and divergences of classes of which no more is known than `log_prob` and `support`."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import (
    Beta,
    Categorical,
    Distribution,
    Gamma,
    Laplace,
    MixtureSameFamily,
    Normal,
    Weibull,
    constraints,
)

import pyro_kl

from .making import number

pytestmark = pytest.mark.usefixtures("double")


class Bell(Distribution):
    """A Normal, of which pyro_kl knows nothing."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    support = constraints.real

    def __init__(self, loc, scale):
        self.loc, self.scale = torch.broadcast_tensors(number(loc), number(scale))
        super().__init__(self.loc.shape, validate_args=False)

    def log_prob(self, value):
        return Normal(self.loc, self.scale, validate_args=False).log_prob(value)


class OwnGamma(Gamma):
    def log_prob(self, value):
        return super().log_prob(value)


class OwnBeta(Beta):
    def log_prob(self, value):
        return super().log_prob(value)


class Noisy(Bell):
    def log_prob(self, value):
        return super().log_prob(value) + 0.1 * torch.rand(value.shape)


class Cut(Bell):
    """It underflows where its density is still of the order of 1."""

    def log_prob(self, value):
        log = super().log_prob(value)
        return torch.where(value.abs() > self.scale, -math.inf, log)


PAIRS = [
    (Bell(0.3, 1.1), Laplace(number(-0.5), number(2.0)), Normal(number(0.3), number(1.1)), None),
    (Laplace(number(-0.5), number(2.0)), Bell(0.3, 1.1), None, Normal(number(0.3), number(1.1))),
    (
        OwnGamma(number(2.0), number(3.0)),
        Weibull(number(1.5), number(0.75)),
        Gamma(number(2.0), number(3.0)),
        None,
    ),
    (
        OwnGamma(number(2.0), number(3.0)),
        Normal(number(0.0), number(1.0)),
        Gamma(number(2.0), number(3.0)),
        None,
    ),
    (
        OwnBeta(number(2.0), number(0.5)),
        Beta(number(2.0), number(3.0)),
        Beta(number(2.0), number(0.5)),
        None,
    ),
]


@pytest.mark.parametrize(("p", "q", "known_p", "known_q"), PAIRS)
def test_as_the_classes_that_are_declared(p, q, known_p, known_q):
    known = known_p or p, known_q or q
    for divergence in (
        lambda p, q: pyro_kl.renyi(p, q, 0.1),
        lambda p, q: pyro_kl.renyi(p, q, 0.9),
        pyro_kl.jensen_shannon,
        lambda p, _: pyro_kl.entropy(p),
    ):
        found, expected = divergence(p, q), divergence(*known)
        error = 0.0 if found.error is None else float(found.error)
        assert float(found) == pytest.approx(float(expected), rel=1e-10, abs=error)
        assert error < 1e-4
    with pytest.raises(NotImplementedError, match="not declared how fast"):
        pyro_kl.renyi(p, q, 1.5)


class Plain(Normal):
    """A subclass that changes nothing."""


def test_a_subclass_with_the_same_density():
    q = Laplace(number(-0.5), number(2.0))
    for divergence in (
        lambda p, q: pyro_kl.renyi(p, q, 2.0),
        lambda p, q: pyro_kl.renyi(p, q, math.inf),
        pyro_kl.jensen_shannon,
    ):
        found = divergence(Plain(number(0.3), number(1.1)), q)
        assert found == divergence(Normal(number(0.3), number(1.1)), q)


def test_gradient():
    loc = number(0.3).requires_grad_()
    p = Bell(0.0, 1.1)
    p.loc = loc
    q = Laplace(number(-0.5), number(2.0))
    slopes = []
    for first in (p, Normal(loc, number(1.1))):
        for value in (pyro_kl.renyi(first, q, 0.5).value, pyro_kl.jensen_shannon(first, q).value):
            slopes.append(float(torch.autograd.grad(value, loc)[0]))
    assert slopes[:2] == pytest.approx(slopes[2:], rel=1e-9)


def test_rows_with_a_parameter_that_is_nan():
    p = Bell([0.0, math.nan], 1.0)
    found = pyro_kl.renyi(p, Normal(number(0.0), number(2.0)), 0.5)
    expected = pyro_kl.renyi(
        Normal(number(0.0), number(1.0)), Normal(number(0.0), number(2.0)), 0.5
    )
    assert float(found[0]) == pytest.approx(float(expected), rel=1e-12)
    assert found.value[1].isnan()
    assert pyro_kl.entropy(p).value.isnan().tolist() == [False, True]


@pytest.mark.parametrize("p", [Noisy(0.0, 1.0), Cut(0.0, 1.0)])
def test_densities_that_are_none(p):
    for divergence in (lambda p, q: pyro_kl.renyi(p, q, 0.5), pyro_kl.jensen_shannon):
        with pytest.raises(NotImplementedError, match=r"random numbers|cannot be told"):
            divergence(p, Laplace(number(0.0), number(1.0)))
    with pytest.raises(NotImplementedError, match=r"random numbers|cannot be told"):
        pyro_kl.entropy(p)


def test_mixtures_on_an_interval():
    parts = Beta(number([2.0, 3.0]), number([3.0, 40.0]))
    p = MixtureSameFamily(Categorical(number([0.5, 0.5])), parts)
    x = (torch.arange(200_000.0, dtype=torch.float64) + 0.5) / 200_000
    log_p = p.log_prob(x)
    assert float(pyro_kl.entropy(p)) == pytest.approx(
        -float((log_p.exp() * log_p).mean()), rel=1e-8
    )
    flat = Beta(number(1.0), number(1.0))
    assert float(pyro_kl.renyi(p, flat, 2.0)) == pytest.approx(
        float((2 * log_p).exp().mean().log()), rel=1e-8
    )
