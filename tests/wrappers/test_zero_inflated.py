"""ZeroInflatedDistribution over any base on the counts, against the sum of the definition."""

from __future__ import annotations

import math
import warnings

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

F64 = torch.float64


def t(x):
    return torch.tensor(x, dtype=F64)


def inflated(base, gate):
    return dist.ZeroInflatedDistribution(base, gate=t(gate))


BASES = {
    "Geometric": (dist.Geometric(t(0.25)), dist.Geometric(t(0.5))),
    "Poisson": (dist.Poisson(t(2.0)), dist.Poisson(t(3.0))),
    "Binomial": (dist.Binomial(5, t(0.3)), dist.Binomial(7, t(0.4))),
    "BetaBinomial": (dist.BetaBinomial(t(2.0), t(3.0), 5), dist.BetaBinomial(t(1.0), t(3.0), 5)),
    "Categorical": (dist.Categorical(t([0.2, 0.8])), dist.Categorical(t([0.3, 0.3, 0.4]))),
    "mixed": (dist.Bernoulli(t(0.3)), dist.Poisson(t(1.5))),
    "GammaPoisson": (dist.GammaPoisson(t(2.0), t(1.0)), dist.GammaPoisson(t(3.0), t(2.0))),
}


def summed(p, q):
    """The definition; a distribution without end has nothing left at 400."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        k = torch.arange(400, dtype=F64)

        def log_mass(distribution):
            inside = distribution.support.check(k)
            return distribution.log_prob(torch.where(inside, k, 0.0)).masked_fill(
                ~inside, -math.inf
            )

        log_p, log_q = log_mass(p), log_mass(q)
        return torch.where(log_p > -600, log_p.exp() * (log_p - log_q), 0.0).sum().item()


@pytest.mark.parametrize(("p", "q"), BASES.values(), ids=BASES.keys())
def test_is_the_sum(p, q):
    for a, b in (
        (inflated(p, 0.3), inflated(q, 0.1)),
        (inflated(p, 0.3), q),
        (p, inflated(q, 0.2)),
        (inflated(p, 0.0), inflated(p, 0.4)),
    ):
        kl = kl_divergence(a, b)
        assert kl.dtype == F64
        assert kl.item() == pytest.approx(summed(a, b), rel=1e-9)
    assert abs(kl_divergence(inflated(p, 0.3), inflated(p, 0.3))) < 1e-14


def test_all_zero_and_infinite():
    p, q = dist.Geometric(t(0.25)), dist.Geometric(t(0.5))
    assert kl_divergence(inflated(p, 1.0), inflated(q, 0.1)).item() == pytest.approx(
        -math.log(0.1 + 0.9 * 0.5)
    )
    assert kl_divergence(inflated(p, 0.5), inflated(q, 1.0)) == math.inf
    assert kl_divergence(inflated(p, 0.5), inflated(dist.Binomial(5, t(0.3)), 0.5)) == math.inf
    assert kl_divergence(dist.Normal(t(0.0), 1.0), inflated(q, 0.5)) == math.inf
    gate = t([1.0, 0.5]).requires_grad_()
    kl = kl_divergence(dist.ZeroInflatedDistribution(p, gate=gate), inflated(q, 0.25))
    kl.sum().backward()
    assert gate.grad.isfinite().all()


def test_agrees_with_the_named_class_and_in_float32():
    a = dist.ZeroInflatedPoisson(t(2.0), gate=t(0.3))
    right = kl_divergence(a, dist.ZeroInflatedPoisson(t(3.0), gate=t(0.1)))
    generic = kl_divergence(a, inflated(dist.Poisson(t(3.0)), 0.1))
    assert generic.item() == pytest.approx(right.item(), rel=1e-13)
    p = dist.ZeroInflatedDistribution(dist.Geometric(torch.tensor(0.25)), gate_logits=t(0.0))
    q = dist.ZeroInflatedDistribution(
        dist.Geometric(torch.tensor([0.25, 0.5])), gate=torch.tensor(0.5)
    )
    assert kl_divergence(p, q).shape == (2,)
    assert kl_divergence(p.expand((3, 2)).mask(False), q.mask(False)).shape == (3, 2)
    single = kl_divergence(q, q)
    assert single.dtype == torch.float32
    assert single.tolist() == [0.0, 0.0]


def test_a_continuous_base_is_refused():
    p = inflated(dist.Gamma(t(2.0), t(1.0)), 0.5)
    for a, b in ((p, p), (p, dist.Gamma(t(2.0), t(1.0))), (dist.Poisson(t(2.0)), p)):
        with pytest.raises(ValueError, match="mixes an atom at 0 with a density"):
            kl_divergence(a, b)
