"""Entropies and cross-entropies, those that `Distribution.entropy` finds, mixtures."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import (
    Binomial,
    Categorical,
    Dirichlet,
    Exponential,
    Gamma,
    Independent,
    MixtureSameFamily,
    NegativeBinomial,
    Normal,
    OneHotCategorical,
    Poisson,
    StudentT,
    TransformedDistribution,
    VonMises,
    transforms,
)

import pyro_kl

from .making import number

pytestmark = pytest.mark.usefixtures("nothing_warned", "double")
LOG_2 = math.log(2)


def test_entropies_that_torch_lacks():
    x = torch.arange(400.0)
    for p in (Poisson(number(3.0)), NegativeBinomial(number(3.0), number(0.4))):
        log_p = p.log_prob(x)
        assert float(pyro_kl.entropy(p)) == pytest.approx(-float((log_p.exp() * log_p).sum()))
        assert p.entropy() == pyro_kl.entropy(p).value
    counts = Binomial(torch.tensor([5.0, 3.0]), number(0.3))
    each = torch.stack([Binomial(n, number(0.3)).entropy() for n in (5, 3)])
    assert torch.allclose(pyro_kl.entropy(counts).value, each, rtol=1e-13)
    assert float(pyro_kl.entropy(VonMises(number(1.0), number(2.0)))) == pytest.approx(
        1.2663212919642852
    )


def test_entropies_whose_digits_torch_loses():
    concentration = torch.tensor(1e7, dtype=torch.float32)
    found = float(pyro_kl.entropy(Gamma(concentration, concentration)))
    assert found == pytest.approx(-6.6401093256078205, rel=1e-6)
    both = torch.stack((concentration, concentration))
    found = float(pyro_kl.entropy(Dirichlet(both)))
    assert found == pytest.approx(-7.679830088114407, rel=1e-6)


class WithoutZero(Poisson):
    """A subclass with another density."""

    def log_prob(self, value):
        return super().log_prob(value) - torch.log(-torch.expm1(-self.rate))


class Counted(Gamma):
    """A subclass with an entropy of its own."""

    def entropy(self):
        return torch.tensor(7.0)


def test_the_method_finds_formulas_and_sums_and_nothing_else():
    counts = Binomial(torch.tensor([5.0, 3.0]), number(0.3))
    assert torch.equal(counts.entropy(), pyro_kl.entropy(counts).value)
    moved = TransformedDistribution(Normal(0.0, 1.0), transforms.AffineTransform(1.0, 3.0))
    assert float(Independent(moved.expand((4,)), 1).entropy()) == pytest.approx(
        4 * float(Normal(0.0, 3.0).entropy())
    )
    squashed = TransformedDistribution(Normal(0.0, 1.0), transforms.TanhTransform())
    for p in (squashed, WithoutZero(number(3.0)), MIXTURE):
        with pytest.raises(NotImplementedError):
            p.entropy()
    assert Counted(number(2.0), number(1.0)).entropy() == 7
    concentration = torch.tensor(1e7, dtype=torch.float32)
    value = Gamma(concentration, concentration).entropy()
    assert value.dtype is torch.float32
    assert float(value) == pytest.approx(-6.6401093256078205, rel=1e-6)
    rate = number(3.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda rate: Poisson(rate).entropy(), rate)


def test_entropy_of_maps_and_products():
    normal = Normal(number([0.0, 1.0]), number(2.0))
    product = Independent(normal, 1)
    assert pyro_kl.entropy(product).value == normal.entropy().sum()
    stretched = TransformedDistribution(normal, transforms.AffineTransform(1.0, 3.0))
    assert torch.allclose(pyro_kl.entropy(stretched).value, normal.entropy() + math.log(3))
    squashed = pyro_kl.entropy(
        TransformedDistribution(Normal(number(0.0), number(1.0)), transforms.TanhTransform())
    )
    z = torch.linspace(-12, 12, 20001)
    log_p = Normal(0.0, 1.0).log_prob(z)
    log_slope = transforms.TanhTransform().log_abs_det_jacobian(z, z.tanh())
    expected = torch.trapezoid(log_p.exp() * (log_slope - log_p), z)
    assert float(squashed) == pytest.approx(float(expected), rel=1e-10)
    one_hot = OneHotCategorical(number([0.25, 0.75]))
    assert float(pyro_kl.entropy(one_hot)) == pytest.approx(float(one_hot.entropy()))


def mixture_of_normals(weights, locs, scales):
    return MixtureSameFamily(Categorical(number(weights)), Normal(number(locs), number(scales)))


MIXTURE = mixture_of_normals([[0.3, 0.7], [0.5, 0.5]], [[0.0, 3.0], [-50.0, 50.0]], [1.0, 0.05])


@pytest.mark.parametrize(
    "q", [Normal(0.0, 2.0), StudentT(3.0), mixture_of_normals([0.5, 0.5], [-1.0, 3.0], [2.0, 0.1])]
)
def test_mixtures(q):
    x = torch.linspace(-80.0, 80.0, 400_001).unsqueeze(-1)
    log_p, log_q = MIXTURE.log_prob(x), q.log_prob(x.expand(-1, 2))
    mean = torch.logaddexp(log_p, log_q) - LOG_2

    def integral(f):
        return f.nan_to_num(0.0).sum(0) * (160.0 / 400_000)

    halves = [integral(log.exp() * (log - mean)) for log in (log_p, log_q)]
    expected = {
        pyro_kl.entropy(MIXTURE): integral(-log_p.exp() * log_p),
        pyro_kl.jensen_shannon(MIXTURE, q): 0.5 * (halves[0] + halves[1]),
        pyro_kl.jensen_shannon(q, MIXTURE): 0.5 * (halves[0] + halves[1]),
        pyro_kl.renyi(MIXTURE, q, 0.5): -2 * integral((0.5 * (log_p + log_q)).exp()).log(),
    }
    for found, value in expected.items():
        assert torch.allclose(found.value, value, rtol=2e-5 if isinstance(q, StudentT) else 1e-9)
        assert (found.error < 1e-9 * (1 + value.abs())).all()


def test_cross_entropy():
    p, q = Normal(number(1.0), number(1.0)), Normal(number(0.0), number(2.0))
    expected = 0.5 * math.log(2 * math.pi) + LOG_2 + (1 + 1) / 8
    assert float(pyro_kl.cross_entropy(p, q)) == pytest.approx(expected, rel=1e-14)
    assert pyro_kl.cross_entropy(p, Exponential(number(1.0))).value == math.inf
