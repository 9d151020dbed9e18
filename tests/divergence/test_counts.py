"""Entropies and divergences of mixtures of counts, of wide counts and of events of one number."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Independent

import pyro_kl
from pyro_kl.divergence import sums

from .making import number

pytestmark = pytest.mark.usefixtures("nothing_warned", "double")


class Doubled(torch.distributions.Poisson):
    """A subclass with another density."""

    def log_prob(self, value):
        return 2 * super().log_prob(value)


def mixture(weights, parts):
    weights = torch.distributions.Categorical(number(weights))
    return torch.distributions.MixtureSameFamily(weights, parts)


MIXTURES = {
    "Poisson": (
        mixture([[0.3, 0.7], [1.0, 0.0]], torch.distributions.Poisson(number([[1.0, 5.0]] * 2))),
        mixture([0.5, 0.2, 0.3], torch.distributions.Poisson(number([2.0, 3.0, 0.0]))),
    ),
    "Bernoulli": (
        mixture([0.5, 0.5], torch.distributions.Bernoulli(number([[0.1, 0.5], [1.0, 0.2]]))),
        torch.distributions.Bernoulli(number(0.4)),
    ),
    "Categorical": (
        mixture([0.5, 0.5], torch.distributions.Categorical(number([[0.1, 0.9], [0.4, 0.6]]))),
        torch.distributions.Categorical(number([0.3, 0.7])),
    ),
    "GammaPoisson": (
        mixture([0.2, 0.8], dist.GammaPoisson(number([2.0, 3.0]), number([1.0, 5.0]))),
        torch.distributions.Geometric(number(0.3)),
    ),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_of_counts(name):
    p, q = MIXTURES[name]
    k = torch.arange(2.0 if name in ("Bernoulli", "Categorical") else 500.0)
    shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    log_p, log_q = (
        x.expand(shape).log_prob(k.reshape(-1, *(1,) * len(shape)).expand(-1, *shape))
        for x in (p, q)
    )
    mean = torch.logaddexp(log_p, log_q) - math.log(2)
    halves = [torch.special.xlogy(x.exp(), (x - mean).exp()).sum(0) for x in (log_p, log_q)]
    expected = 0.5 * (halves[0] + halves[1])
    assert torch.allclose(pyro_kl.jensen_shannon(p, q).value, expected, rtol=1e-11)
    entropy = torch.special.entr(log_p.exp()).sum(0)
    assert torch.allclose(pyro_kl.entropy(p).value, entropy, rtol=1e-11)
    assert torch.allclose(p.entropy(), entropy, rtol=1e-11)
    for alpha in (0.1, 0.9):
        total = (alpha * log_p + (1 - alpha) * log_q).logsumexp(0)
        found = pyro_kl.renyi(p, q, alpha).value
        assert torch.allclose(found, total / (alpha - 1), rtol=1e-10)


def test_mixtures_of_counts_have_derivatives():
    def both(logits, rate):
        weights = torch.distributions.Categorical(logits=logits)
        p = torch.distributions.MixtureSameFamily(weights, torch.distributions.Poisson(rate))
        shared = pyro_kl.jensen_shannon(p, torch.distributions.Poisson(rate[..., 0]))
        return shared.value, pyro_kl.entropy(p).value

    given = number([0.3, -0.2]).requires_grad_(), number([2.0, 5.0]).requires_grad_()
    assert torch.autograd.gradcheck(both, given)

    def beyond_the_atoms(probs):
        weights = torch.distributions.Categorical(number([0.5, 0.5]))
        parts = torch.distributions.Bernoulli(probs)
        p = torch.distributions.MixtureSameFamily(weights, parts)
        q = torch.distributions.Categorical(number([0.2, 0.3, 0.5]))
        return pyro_kl.jensen_shannon(p, q).value

    assert torch.autograd.gradcheck(beyond_the_atoms, number([0.1, 0.6]).requires_grad_())


def test_orders_above_1_of_mixtures_of_counts():
    """Among finitely many atoms they are sums; else nothing is known of the tails."""
    p, q = MIXTURES["Bernoulli"]
    found = pyro_kl.renyi(p, q, 2.0).value
    masses = [x.log_prob(number([[0.0], [1.0]]).expand(2, 2)).exp() for x in (p, q)]
    assert torch.allclose(found, (masses[0] ** 2 / masses[1]).sum(0).log())
    assert torch.isfinite(pyro_kl.renyi(p, q, math.inf).value).all()
    with pytest.raises(NotImplementedError, match="mixtures of infinitely many counts"):
        pyro_kl.renyi(*MIXTURES["Poisson"], 2.0)
    counts = torch.distributions.Binomial(3, number(0.5))
    assert (pyro_kl.renyi(MIXTURES["Poisson"][0], counts, 2.0).value == math.inf).all()
    for parts in (
        Doubled(number([1.0, 5.0])),
        torch.distributions.Uniform(number([0.0, 1.0]), number(2.0)),
    ):
        with pytest.raises(NotImplementedError):
            mixture([0.5, 0.5], parts).entropy()


def test_entropy_of_wide_counts(monkeypatch):
    """A narrow row beside a wide one is a sum; the series is that of the sum where both are."""
    counts = torch.distributions.Poisson(number([1e9, 3.0, 1e6]))
    found = counts.entropy()
    assert torch.equal(found, pyro_kl.entropy(counts).value)
    assert float(found[1]) == float(torch.distributions.Poisson(number(3.0)).entropy())
    # 0.5 log(2 pi e rate) - 1 / (12 rate) - 1 / (24 rate^2), in 40 digits
    assert float(found[0]) == pytest.approx(11.780571451594545, rel=1e-15)
    rate = number(1.2e4).requires_grad_()
    inflated = dist.ZeroInflatedPoisson(rate, gate=number([0.0, 0.2, 1.0]))
    for p in (torch.distributions.Poisson(rate), inflated):
        series = pyro_kl.entropy(p).value
        (slope,) = torch.autograd.grad(series.sum(), rate)
        with monkeypatch.context() as summed:
            summed.setattr(sums, "_WIDE", math.inf)
            whole = pyro_kl.entropy(p).value
            assert torch.allclose(series, whole, rtol=1e-12)
            (expected,) = torch.autograd.grad(whole.sum(), rate)
            assert float(slope) == pytest.approx(float(expected), rel=1e-8)


def test_shannon_of_events_with_one_number():
    """It is that of the numbers themselves."""
    loc, scale = number([[0.0], [1.5]]), number([[1.0], [0.3]])
    plain = torch.distributions.Normal(loc, scale)
    q = torch.distributions.Laplace(number([0.5]), number([2.0]))
    expected = pyro_kl.jensen_shannon(plain, q)
    product = Independent(plain, 1)
    dense = torch.distributions.MultivariateNormal(loc, scale_tril=scale.unsqueeze(-1))
    thin = torch.distributions.LowRankMultivariateNormal(
        loc, (0.6 * scale).unsqueeze(-1), (0.8 * scale).square()
    )
    for p in (product, dense, thin):
        found = pyro_kl.jensen_shannon(p, Independent(q, 1))
        assert found.value.shape == found.error.shape == (2,)
        assert torch.allclose(found.value, expected.value[:, 0], rtol=1e-13)
    cube = (
        Independent(torch.distributions.Normal(number([[[0.0]], [[1.0]], [[2.0]]]), 1.0), 2),
        Independent(q.expand((1, 1)), 2),
    )
    assert pyro_kl.jensen_shannon(*cube).value.shape == (3,)
    with pytest.raises(NotImplementedError):  # of two numbers
        pyro_kl.jensen_shannon(Independent(plain, 2), Independent(q.expand((2, 1)), 2))
