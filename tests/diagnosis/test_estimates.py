"""The estimates cover what they estimate, on Normals where everything is known."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from pyro_kl.diagnosis import pareto
from pyro_kl.diagnosis.doubts import too_heavy
from pyro_kl.diagnosis.estimates import LogWeights, estimate
from pyro_kl.diagnosis.moments import Moments

NONE = LogWeights(torch.zeros(0).double(), torch.zeros(0).double())


class Problem:
    """z ~ N(0, I), data of 0 with variance 1: the posterior is N(0, I/2). The guide is off."""

    def __init__(self, size, width, shift=0.0):
        self.size, scale = size, width / 2**0.5
        self.guide = Normal(torch.full((size,), shift / 2**0.5).double(), scale)
        self.wide = Normal(self.guide.loc, scale * (1 + 1.25 / size**0.5))
        posterior = Normal(torch.zeros(size).double(), 0.5**0.5)
        self.kl = float(kl_divergence(self.guide, posterior).sum())
        self.evidence = size * float(Normal(0.0, 2**0.5).log_prob(torch.zeros(())))

    def draws(self, q, count):
        """Weights, terms of the ELBO and values."""
        z = q.sample((count,))
        prior = Normal(torch.zeros(()).double(), 1.0)
        likelihood, log_q = prior.log_prob(z).sum(-1), self.guide.log_prob(z).sum(-1)
        weights = LogWeights(2 * likelihood - log_q, self.wide.log_prob(z).sum(-1) - log_q)
        return weights, likelihood - kl_divergence(self.guide, prior).sum(), z

    def estimate(self, count, wider=True):
        drawn, terms, _ = self.draws(self.guide, count)
        more = self.draws(self.wide, count // 2)[0] if wider else NONE
        if not wider:
            drawn = LogWeights(drawn.weights, torch.zeros_like(drawn.weights))
        return estimate(drawn, more, terms, rounding=1e-15)


@pytest.mark.parametrize("wider", [True, False])
@pytest.mark.parametrize(
    ("size", "width", "shift"),
    [
        (1, 0.8, 0.1),
        pytest.param(1, 0.95, 0.1, marks=pytest.mark.sweep),
        pytest.param(10, 0.9, 0.05, marks=pytest.mark.sweep),
        pytest.param(50, 0.97, 0.02, marks=pytest.mark.sweep),
    ],
)
def test_intervals_cover(size, width, shift, wider):
    """95 % of the intervals cover, within the noise of 150 repetitions."""
    problem = Problem(size, width, shift)
    covered = {"kl_posterior": [], "log_evidence": [], "elbo": []}
    exact = {
        "kl_posterior": problem.kl,
        "log_evidence": problem.evidence,
        "elbo": problem.evidence - problem.kl,
    }
    for _ in range(150):
        found = problem.estimate(2000, wider)
        assert found.kl_at_least < problem.kl
        for name, hits in covered.items():
            own = getattr(found, name)
            assert own.method == "monte carlo"
            hits.append(abs(float(own) - exact[name]) < 1.96 * float(own.standard_error))
    for name, hits in covered.items():
        assert sum(hits) / 150 > 0.95 - 4 * (0.95 * 0.05 / 150) ** 0.5, name


@pytest.mark.parametrize(("size", "width"), [(10, 0.85), (1, 0.95)])
def test_the_wider_draws_make_the_error_smaller(size, width):
    """Also close to the posterior, where the weights have hardly any tail."""
    problem = Problem(size, width, 0.05)
    alone = float(problem.estimate(5000, wider=False).kl_posterior.standard_error)
    both = float(problem.estimate(5000).kl_posterior.standard_error)
    assert both < 0.6 * alone


@pytest.mark.parametrize("width", [0.1, 0.3, 0.5])
def test_the_bound_holds_for_heavy_tails(width):
    problem = Problem(1, width)
    found = [problem.estimate(1000, wider=False) for _ in range(100)]
    assert sum(x.kl_at_least > problem.kl for x in found) <= 5
    assert any(x.kl_posterior.method == "unknown" for x in found)
    unknown = [x for x in found if x.khat >= x.threshold]
    assert all(math.isnan(float(x.kl_posterior)) for x in unknown)


def test_more_draws_are_named_where_they_would_do():
    assert too_heavy(0.65, 0.6, True, 0.1).endswith("above 0.60: about 720 draws would be enough")
    assert "would be enough" not in too_heavy(0.75, 0.6, True, 0.1)
    assert too_heavy(0.5, 0.6, True, 0.1) == ""


@pytest.mark.parametrize(("wider", "fewest"), [(True, 300), (False, 2000)])
def test_few_draws_have_no_interval(wider, fewest):
    problem = Problem(1, 0.85)
    few = problem.estimate(fewest - 1, wider).kl_posterior
    assert few.method == "unknown"
    assert few.reason.startswith(f"{fewest - 1:,} draws are too few")
    assert problem.estimate(fewest, wider).kl_posterior.method == "monte carlo"


@pytest.mark.sweep
def test_intervals_of_the_fewest_draws_cover():
    problem, hits = Problem(1, 0.85, 0.1), 0
    for _ in range(1000):
        found = problem.estimate(300).kl_posterior
        hits += abs(float(found) - problem.kl) < 1.96 * float(found.standard_error)
    assert hits / 1000 > 0.95 - 4 * (0.95 * 0.05 / 1000) ** 0.5


def test_moments_in_one_pass_are_those_of_all_draws():
    problem = Problem(3, 0.8, 0.1)
    drawn, _, z = problem.draws(problem.guide, 5000)
    smoothed = pareto.smooth(drawn.weights)
    sums = Moments(z[:777], pareto.tail_length(5000) + 1)
    for weights, values in zip(drawn.weights.split(777), z.split(777), strict=True):
        sums.add(weights, values, of_guide=True)
    found = sums.finish(smoothed)
    weight = torch.softmax(smoothed.log_weights(drawn.weights), 0)[:, None]
    mean = (weight * z).sum(0)
    torch.testing.assert_close(found.mean, mean)
    torch.testing.assert_close(found.sd, (weight * (z - mean) ** 2).sum(0).sqrt())
    error = (weight**2 * (z - mean) ** 2).sum(0).sqrt()
    torch.testing.assert_close(found.mean_error, error)
    torch.testing.assert_close(found.guide_mean, z.mean(0))
    torch.testing.assert_close(found.guide_sd, z.std(0, correction=0))
    torch.testing.assert_close(found.guide_fourth, ((z - z.mean(0)) ** 4).mean(0))
    logs = drawn.weights[:, None] + ((z - z[:777].mean(0)) ** 2).log()
    khats = [pareto.smooth(column).shape for column in logs.T]
    assert found.khat.tolist() == pytest.approx(khats, abs=1e-9)
    own, corrected = sums.covariances()
    torch.testing.assert_close(own, z.T.cov(correction=0))
    torch.testing.assert_close(corrected, z.T.cov(correction=0, aweights=weight[:, 0]))
    guide, posterior = sums.densities()
    for i, edges in enumerate(sums.bins.edges):
        plain = torch.histogram(z[:, i], edges).hist / (5000 * edges.diff())
        torch.testing.assert_close(guide[i], plain)
        weighted = torch.histogram(z[:, i], edges, weight=weight[:, 0]).hist / edges.diff()
        torch.testing.assert_close(posterior[i], weighted)
