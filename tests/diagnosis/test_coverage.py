"""95 % intervals cover, on models whose evidence is known, with guides off by known amounts."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from pyro import distributions as dist
from torch.distributions import kl_divergence

from pyro_kl.diagnosis.estimates import LogWeights, estimate
from pyro_kl.diagnosis.wider import wider

REPETITIONS, DRAWS = 400, 10_000
EYE = torch.eye(6).double()


def number(x):
    return torch.tensor(x, dtype=torch.float64)


@dataclass
class Known:
    """Prior, likelihood, posterior and log evidence of a model."""

    prior: Any
    log_likelihood: Any
    posterior: Any
    evidence: float

    def draws(self, guide, q, wide):
        z = q.sample((DRAWS if q is guide else DRAWS // 2,))
        log_q, likelihood = guide.log_prob(z), self.log_likelihood(z)
        weights = self.prior.log_prob(z) + likelihood - log_q
        terms = likelihood - kl_divergence(guide, self.prior)
        return LogWeights(weights, wide.log_prob(z) - log_q), terms

    def estimate(self, guide):
        coordinates = guide.event_shape.numel()
        wide = wider(guide, 1 + 1.25 / coordinates**0.5)
        drawn, terms = self.draws(guide, guide, wide)
        return estimate(drawn, self.draws(guide, wide, wide)[0], terms, rounding=1e-15)


def beta_bernoulli():
    return Known(
        dist.Beta(number(2.0), 3.0),
        lambda z: 3 * z.log() + (-z).log1p(),
        dist.Beta(number(5.0), 4.0),
        sum(math.lgamma(a) for a in (5, 4)) - math.lgamma(9)
        - sum(math.lgamma(a) for a in (2, 3)) + math.lgamma(5),
    )  # fmt: skip


def gamma_poisson():
    counts = -sum(math.lgamma(x + 1) for x in (3, 5, 1))
    return Known(
        dist.Gamma(number(2.0), 1.0),
        lambda z: 9 * z.log() - 3 * z + counts,
        dist.Gamma(number(11.0), 4.0),
        math.lgamma(11) - 11 * math.log(4) + counts,
    )


def gaussian(prior_precision, features, target, noise):
    """Normal with a Gaussian prior: linear regression, and the states of a GaussianHMM."""
    prior = dist.MultivariateNormal(
        torch.zeros(len(prior_precision)).double(), precision_matrix=prior_precision
    )
    precision = prior_precision + features.T @ features / noise**2
    mean = torch.linalg.solve(precision, features.T @ target / noise**2)
    covariance = features @ prior.covariance_matrix @ features.T
    covariance = covariance + noise**2 * torch.eye(len(target)).double()
    evidence = dist.MultivariateNormal(torch.zeros(len(target)).double(), covariance)
    return Known(
        prior,
        lambda z: dist.Normal(z @ features.T, noise).log_prob(target).sum(-1),
        dist.MultivariateNormal(mean, precision_matrix=precision),
        float(evidence.log_prob(target)),
    )


def regression():
    features = torch.linspace(-1, 1, 12).double()[:, None] ** torch.arange(4)
    return gaussian(EYE[:4, :4], features, torch.linspace(0, 2, 12).double().sin(), 0.5)


def state_space():
    differences = EYE - torch.diag(torch.ones(5), -1).double()
    steps = torch.diag(torch.tensor([1 / 3] + [1.0] * 5).double())
    return gaussian(
        differences.T @ steps @ differences, EYE, torch.linspace(0, 2, 6).double(), 0.5
    )


def off(posterior, width, mean_field=False):
    """A Gaussian posterior with other sds, moved a little; without its correlations if so."""
    precision = posterior.precision_matrix
    scale = torch.diag(precision.diagonal().rsqrt()) if mean_field else posterior.scale_tril
    return dist.MultivariateNormal(
        posterior.loc + 0.1 * posterior.stddev, scale_tril=width * scale
    )


GUIDES = [
    (beta_bernoulli, lambda p: dist.Beta(number(6.0), 4.5)),
    (beta_bernoulli, lambda p: dist.Beta(number(15.0), 12.0)),
    (gamma_poisson, lambda p: dist.Gamma(number(12.0), 4.2)),
    (gamma_poisson, lambda p: dist.Gamma(number(33.0), 12.0)),
    (regression, lambda p: off(p, 0.9)),
    (regression, lambda p: off(p, 0.7)),
    (state_space, lambda p: off(p, 0.8)),
    (state_space, lambda p: off(p, 1.0, mean_field=True)),
]


@pytest.mark.sweep
@pytest.mark.parametrize(("make", "guide"), GUIDES)
def test_intervals_cover(make, guide):
    """Within 93 to 97 %, up to three standard errors of a proportion."""
    known = make()
    q = guide(known.posterior)
    kl = float(kl_divergence(q, known.posterior))
    exact = {"kl_posterior": kl, "log_evidence": known.evidence, "elbo": known.evidence - kl}
    hits = {name: 0 for name in exact}
    for _ in range(REPETITIONS):
        found = known.estimate(q)
        for name, value in exact.items():
            own = getattr(found, name)
            hits[name] += abs(float(own) - value) < 1.96 * float(own.standard_error)
        assert found.kl_at_least < kl
    noise = 3 * (0.95 * 0.05 / REPETITIONS) ** 0.5
    for name, count in hits.items():
        assert abs(count / REPETITIONS - 0.95) < noise, name
