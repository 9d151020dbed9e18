"""Discrete latents that the model marks for enumeration are summed out."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

import pyro_kl

X = torch.tensor([-3.0, -2.5, 2.0, 3.1, 2.2]).double()
MARK = {"enumerate": "parallel"}


def continuous():
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2).double(), 3.0).to_event(1))
    weight = pyro.sample("weight", dist.Beta(torch.tensor(2.0).double(), 2.0))
    return loc, weight


def mixture(infer=MARK):
    loc, weight = continuous()
    with pyro.plate("rows", 5):
        k = pyro.sample("k", dist.Bernoulli(weight), infer=infer)
        pyro.sample("x", dist.Normal(torch.where(k == 1, loc[..., 1], loc[..., 0]), 1.0), obs=X)


def by_hand():
    """The same with the sum written out."""
    loc, weight = continuous()
    with pyro.plate("rows", 5):
        zero = (1 - weight).log() + dist.Normal(loc[..., 0], 1.0).log_prob(X)
        one = weight.log() + dist.Normal(loc[..., 1], 1.0).log_prob(X)
        pyro.factor("x", torch.logaddexp(zero, one))


def guide():
    pyro.sample("loc", dist.Normal(torch.tensor([-2.7, 2.4]).double(), 0.6).to_event(1))
    pyro.sample("weight", dist.Beta(torch.tensor(5.0).double(), 4.0))


def agree(found, other):
    error = math.hypot(float(found.standard_error), float(other.standard_error))
    return abs(float(found) - float(other)) < 4 * error


@pytest.mark.parametrize("vectorize", [True, pytest.param(False, marks=pytest.mark.sweep)])
def test_a_mixture_is_that_with_the_sum_written_out(vectorize):
    count = 2000 if vectorize else 300
    found = pyro_kl.diagnose(mixture, guide, num_samples=count, vectorize=vectorize)
    other = pyro_kl.diagnose(by_hand, guide, num_samples=2000)
    assert [site.site for site in found] == ["loc", "weight"]
    for name in ("elbo", "log_evidence", "kl_posterior"):
        assert agree(getattr(found, name), getattr(other, name)), name
    assert found["loc"].prior_kl.method == "closed form"
    assert float(found["loc"].prior_kl) == pytest.approx(float(other["loc"].prior_kl))


def test_a_chain_is_that_of_a_matrix_product():
    transition = torch.tensor([[0.8, 0.2], [0.3, 0.7]]).double()

    def chain():
        loc = pyro.sample("loc", dist.Normal(torch.tensor(0.0).double(), 1.0))
        state = torch.tensor(0)
        for t in pyro.markov(range(4)):
            state = pyro.sample(f"k{t}", dist.Categorical(transition[state]), infer=MARK)
            pyro.sample(f"x{t}", dist.Normal(loc + 2 * state, 1.0), obs=X[t])

    grid = torch.linspace(-6, 6, 2001).double()
    means = grid[:, None] + torch.tensor([0.0, 2.0])
    forward = torch.tensor([[1.0, 0.0]]).double()
    for t in range(4):
        forward = (forward @ transition) * dist.Normal(means, 1.0).log_prob(X[t]).exp()
    joint = forward.sum(-1).log() + dist.Normal(0.0, 1.0).log_prob(grid)
    evidence = joint.logsumexp(0) + math.log(12 / 2000)
    own = dist.Normal(torch.tensor(-0.9).double(), 0.6)
    found = pyro_kl.diagnose(chain, lambda: pyro.sample("loc", own), num_samples=2000)
    error = float(found.log_evidence.standard_error)
    assert abs(float(found.log_evidence) - float(evidence)) < 4 * error


def test_what_the_guide_enumerates_is_drawn():
    def model():
        k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.5).double()), infer=MARK)
        pyro.sample("x", dist.Normal(k, 1.0), obs=X[2])

    posterior = dist.Bernoulli(logits=dist.Normal(1.0, 1.0).log_prob(X[2]) - dist.Normal(
        0.0, 1.0).log_prob(X[2]))  # fmt: skip
    own = dist.Bernoulli(torch.tensor(0.7).double())
    found = pyro_kl.diagnose(model, lambda: pyro.sample("k", own, infer=MARK), num_samples=4000)
    exact = float(kl_divergence(own, posterior))
    assert abs(float(found.kl_posterior) - exact) < 4 * float(found.kl_posterior.standard_error)
    assert float(found["k"].mean) == pytest.approx(float(posterior.probs), abs=0.03)


def test_local_mixtures_have_weights_by_row():
    def local():
        with pyro.plate("rows", 5):
            k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.5).double()), infer=MARK)
            z = pyro.sample("z", dist.Normal(4 * k - 2, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=X)

    def own():
        with pyro.plate("rows", 5):
            pyro.sample("z", dist.Normal(0.9 * X, 0.8))

    found = pyro_kl.diagnose(local, own, num_samples=2000)
    parts = torch.stack([dist.Normal(m, 2**0.5).log_prob(X) for m in (-2.0, 2.0)])
    evidence = float((parts.logsumexp(0) - math.log(2)).sum())
    assert found.by_row is not None
    error = float(found.log_evidence.standard_error)
    assert abs(float(found.log_evidence) - evidence) < 4 * error


def test_a_discrete_site_without_the_mark_is_refused():
    with pytest.raises(ValueError, match=r"does not draw k: .*enumerate"):
        pyro_kl.diagnose(lambda: mixture({}), guide, num_samples=100)
