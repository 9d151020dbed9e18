"""The wider guide: its density, and the families that have none."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms

from pyro_kl.diagnosis.wider import Wider, factor_of, log_ratio, wider

LOC, SCALE = torch.tensor([0.5, -1.0]), torch.tensor([0.3, 2.0])
WIDER = {
    "Normal": (dist.Normal(LOC, SCALE), dist.Normal(LOC, 1.5 * SCALE)),
    "to_event": (dist.Normal(LOC, SCALE).to_event(1), dist.Normal(LOC, 1.5 * SCALE).to_event(1)),
    "LogNormal": (dist.LogNormal(LOC, SCALE), dist.LogNormal(LOC, 1.5 * SCALE)),
    "MultivariateNormal": (
        dist.MultivariateNormal(LOC, torch.diag(SCALE) + 0.1),
        dist.MultivariateNormal(LOC, 1.5**2 * (torch.diag(SCALE) + 0.1)),
    ),
    "LowRank": (
        dist.LowRankMultivariateNormal(LOC, SCALE[:, None], SCALE),
        dist.LowRankMultivariateNormal(LOC, 1.5 * SCALE[:, None], 1.5**2 * SCALE),
    ),
    "a flow": (
        dist.TransformedDistribution(dist.Normal(LOC, SCALE), [transforms.ExpTransform()]),
        dist.LogNormal(LOC, 1.5 * SCALE),
    ),
}


@pytest.mark.parametrize("name", WIDER)
def test_the_density_of_the_wider_distribution(name):
    narrow, expected = WIDER[name]
    found = wider(narrow, 1.5)
    x = expected.sample((50,))
    torch.testing.assert_close(found.log_prob(x), expected.log_prob(x))


@pytest.mark.parametrize(
    "distribution",
    [
        dist.Normal(0.3, 2.0),
        dist.HalfNormal(2.0),
        dist.Laplace(0.3, 2.0),
        dist.Exponential(2.0),
        dist.Gamma(3.0, 2.0),
        dist.Gamma(0.3, 2.0),
        dist.Beta(3.0, 0.5),
        dist.Dirichlet(torch.tensor([0.5, 2.0, 30.0])),
        dist.MultivariateNormal(LOC, torch.diag(SCALE) + 0.1),
    ],
    ids=lambda x: type(x).__name__,
)
def test_the_density_is_that_of_the_guide_to_a_power(distribution):
    x = distribution.sample((20,))
    constant = wider(distribution, 1.5).log_prob(x) - distribution.log_prob(x) / 1.5**2
    assert float(constant.max() - constant.min()) < 1e-4


@pytest.mark.parametrize(
    "distribution",
    [
        dist.Poisson(2.0),
        dist.StudentT(3.0, 0.0, 1.0),
        dist.HalfCauchy(1.0),  # a TransformedDistribution with a density of its own
        dist.HalfCauchy(torch.ones(2)).to_event(1),
        dist.FoldedDistribution(dist.Normal(0.0, 1.0)),
        dist.Delta(torch.tensor(0.0)),
        dist.Bernoulli(0.5),
    ],
    ids=lambda x: type(x).__name__,
)
def test_other_distributions_have_none(distribution):
    assert wider(distribution, 1.5) is None


def test_draws_are_wider_and_the_trace_has_the_distributions_of_the_guide():
    def guide():
        with pyro.plate("draws", 20_000):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("g", dist.Uniform(0.0, 48**0.5))

    with Wider(2.0):
        trace = pyro.poutine.trace(guide).get_trace()
    assert float(trace.nodes["z"]["value"].std()) == pytest.approx(2, rel=0.03)
    assert float(trace.nodes["g"]["value"].std()) == pytest.approx(2, rel=0.03)
    assert float(trace.nodes["z"]["fn"].scale.max()) == 1
    (ratio,) = log_ratio(trace, 2.0)
    value = trace.nodes["z"]["value"]
    expected = dist.Normal(0.0, 2.0).log_prob(value) - dist.Normal(0.0, 1.0).log_prob(value)
    torch.testing.assert_close(ratio, expected)
    assert factor_of(trace) == pytest.approx(1 + 1.25 / 20_000**0.5)
