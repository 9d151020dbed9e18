"""`Distribution.entropy` after the import: what worked works, and what raised raises the same."""

from __future__ import annotations

import pickle

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import (
    Beta,
    Binomial,
    Chi2,
    Dirichlet,
    Distribution,
    ExponentialFamily,
    Gamma,
    InverseGamma,
    MixtureSameFamily,
    Poisson,
    StudentT,
)

from pyro_kl.divergence.sums import Discrete

IMPRECISE = {
    "Beta": lambda x: Beta(x, x),
    "Chi2": Chi2,
    "Dirichlet": lambda x: Dirichlet(torch.stack((x, x), -1)),
    "Gamma": lambda x: Gamma(x, x),
    "InverseGamma": lambda x: InverseGamma(x, x),
    "StudentT": StudentT,
}


def own(distribution):
    """torch's value: the method that the class had before."""
    return type(distribution).entropy.__wrapped__(distribution)


@pytest.mark.parametrize("make", IMPRECISE.values(), ids=IMPRECISE)
def test_transforms_and_dtypes(make):
    x = torch.tensor([1.5, 2.5])

    def entropy(x):
        return make(x).entropy()

    expected = entropy(x)
    torch.testing.assert_close(torch.func.vmap(entropy)(x), expected)
    torch.func.grad(entropy)(torch.tensor(1.5))
    assert torch.func.vmap(torch.func.grad(entropy))(x).shape == (2,)
    for dtype in (torch.float16, torch.bfloat16):
        found = entropy(x.to(dtype))
        assert found.dtype is dtype
        torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)
    double = make(x.double())
    assert torch.equal(double.entropy(), own(double))  # to the last digit


@pytest.mark.parametrize("cls", [Beta, Binomial, Chi2, Distribution, Gamma, Poisson, StudentT])
def test_the_method_can_be_pickled(cls):
    assert pickle.loads(pickle.dumps(cls.entropy)) is cls.entropy


class Borrowed(Distribution):
    """Not a Gamma, with a Gamma's parameters and method."""

    arg_constraints = {}  # noqa: RUF012
    entropy = Gamma.entropy

    def __init__(self):
        self.concentration = self.rate = torch.tensor(2.0)
        super().__init__(validate_args=False)


class Bregman(Poisson):
    """Has the number that the method of the exponential families needs."""

    @property
    def _mean_carrier_measure(self):
        return torch.tensor(0.5)


class WithoutParts(Distribution):
    """Its constructor sets nothing."""

    def __init__(self):
        pass


def test_user_classes():
    two = torch.tensor(2.0)
    assert torch.equal(Borrowed().entropy(), own(Gamma(two, two)))
    assert torch.equal(Bregman(two).entropy(), ExponentialFamily.entropy(Bregman(two)))
    with pytest.raises(NotImplementedError):
        WithoutParts().entropy()


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated:DeprecationWarning")
def test_what_cannot_be_summed_raises_as_before():
    x = torch.tensor([1.5, 2.5])
    for call in (
        lambda: torch.func.vmap(lambda rate: Poisson(rate).entropy())(x),
        lambda: Poisson(torch.empty(3, device="meta"), validate_args=False).entropy(),
        lambda: torch.jit.trace(
            lambda rate: Poisson(rate, validate_args=False).entropy(), x, check_trace=False
        ),
        lambda: dist.Delta(x).entropy(),
        lambda: MixtureSameFamily(
            torch.distributions.Categorical(torch.ones(2)), torch.distributions.Normal(x, 1.0)
        ).entropy(),
        lambda: endless_chain().entropy(),
    ):
        with pytest.raises(NotImplementedError):
            call()


def endless_chain():
    normal = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
    return dist.GaussianHMM(normal, torch.eye(2), normal, torch.eye(2), normal)


def test_long_sums_are_not_begun(monkeypatch):
    def begun(*_):
        pytest.fail("a sum that is too long was begun")

    long = Poisson(torch.full((10**6,), 3.0)), dist.BetaBinomial(torch.ones(10**4), 1.0, 1000)
    assert Poisson(torch.full((1000,), 3.0)).entropy().shape == (1000,)
    monkeypatch.setattr(Discrete, "log_masses", begun)
    for distribution in long:
        with pytest.raises(NotImplementedError):
            distribution.entropy()
