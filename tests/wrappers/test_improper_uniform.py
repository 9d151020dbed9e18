"""Against an ImproperUniform what is left is -H(p), which p's own log densities estimate."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints, kl_divergence

from ..conformance.cases import F64, FAMILIES, make

t = torch.tensor
KNOWN = [f for f in FAMILIES.values() if f.entropy or f.num_atoms]


def flat(support, event_shape=()):
    return dist.ImproperUniform(support, (), event_shape)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("family", KNOWN, ids=lambda family: family.name)
def test_is_minus_the_entropy(family):
    support = constraints.nonnegative_integer if family.support.discrete else constraints.real
    p = make(family, family.examples[0])
    kl = kl_divergence(p, flat(support))
    assert kl.dtype == F64
    assert kl.shape == ()
    log_p = p.log_prob(p.sample((50_000,)))
    assert abs(log_p.mean() - kl) < 4.5 * log_p.std() / len(log_p) ** 0.5 + 1e-12


def test_infinite_outside_of_the_support():
    half = flat(constraints.positive)
    assert kl_divergence(dist.Normal(0.0, 1.0), half) == math.inf
    assert kl_divergence(dist.Gamma(2.0, 1.0), half) == pytest.approx(-1.5772156649, rel=1e-6)
    scale = t([1.0, 2.0], requires_grad=True)
    kl = kl_divergence(dist.Uniform(0.0, scale), flat(constraints.interval(0.0, 1.0)))
    assert kl.tolist() == [0.0, math.inf]
    kl[0].backward()
    assert scale.grad.tolist() == [-1.0, 0.0]
    # a mass against a density, and a distribution on more atoms than the support has
    assert kl_divergence(dist.Bernoulli(0.5), flat(constraints.real)) == math.inf
    few = flat(constraints.integer_interval(0, 3))
    kl = kl_divergence(dist.Binomial(t([3.0, 5.0]), 0.5), few)
    assert kl.isfinite().tolist() == [True, False]


def test_event_dimensions():
    p = dist.Normal(torch.zeros(2, 3), torch.ones(3)).to_event(1)
    h = -3 * (0.5 + 0.5 * math.log(2 * math.pi))
    for support in (constraints.real, constraints.real_vector):
        kl = kl_divergence(p, flat(support, (3,)))
        assert kl.shape == (2,)
        assert torch.allclose(kl, t(h))
        assert kl_divergence(p.mask(False), flat(support, (3,)).mask(False)).tolist() == [0.0, 0.0]
    low = t([0.0, -1.0, 0.0])
    box = flat(constraints.independent(constraints.greater_than(low), 1), (3,))
    assert kl_divergence(dist.Exponential(torch.ones(3)).to_event(1), box) == -3
    assert kl_divergence(p, box).tolist() == [math.inf, math.inf]


@pytest.mark.parametrize(
    ("p", "support"),
    [
        (dist.MultivariateNormal(torch.zeros(2, 3), torch.eye(3)), constraints.real_vector),
        (dist.LowRankMultivariateNormal(torch.zeros(2, 3), torch.ones(3, 1), torch.ones(3)),
         constraints.real_vector),
        (dist.Dirichlet(torch.ones(2, 3)), constraints.simplex),
        (dist.Dirichlet(torch.ones(2, 3)), constraints.real_vector),
    ],
)  # fmt: skip
def test_distributions_of_vectors(p, support):
    """The entropy is their class's: of samples it is the mean of -log p."""
    torch.manual_seed(0)
    kl = kl_divergence(p, flat(support, (3,)))
    log_p = p.log_prob(p.sample((20_000,)))
    assert kl.shape == (2,)
    error = log_p.std(0) / math.sqrt(20_000) + 1e-6
    assert ((kl - log_p.mean(0)).abs() < 5 * error).all()


def test_where_nothing_is_known():
    with pytest.raises(NotImplementedError, match="nothing is known of the entropy of Stable"):
        kl_divergence(dist.Stable(1.5, 0.0), flat(constraints.real))
    p = dist.Normal(torch.zeros(3), 1.0).to_event(1)
    with pytest.raises(NotImplementedError, match="stays inside"):
        kl_divergence(p, flat(constraints.simplex, (3,)))
    with pytest.raises(ValueError, match="event shapes"):
        kl_divergence(dist.Normal(0.0, 1.0), flat(constraints.real, (3,)))
