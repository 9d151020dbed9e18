"""Draws of sites that a model sums out, and log likelihoods without them, against sums by hand."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_kl.elbo.enumeration.posterior import posterior_of
from pyro_kl.elbo.guides.plan import Run

PARALLEL = {"enumerate": "parallel"}
COPIES = 2000


def posterior(model, guide=lambda: None, nesting=1):
    pyro.set_rng_seed(0)
    return posterior_of(Run(model, guide, (), {}), poutine.trace(guide).get_trace(), nesting)


def assert_frequency(happened, probability):
    error = (probability * (1 - probability) / happened.numel()) ** 0.5
    assert abs(happened.double().mean() - probability) < 4.5 * error


def test_a_row_with_a_sum_of_its_own():
    probs, x = torch.tensor([0.3, 0.7]), 0.5
    locs = torch.tensor([[-1.0, 0.0], [1.0, 2.0]])
    mask = torch.arange(COPIES) > 0

    def model():
        with pyro.plate("rows", COPIES), poutine.mask(mask=mask), poutine.scale(scale=2.0):
            z = pyro.sample("z", dist.OneHotCategorical(probs), infer=PARALLEL)
            u = pyro.sample("u", dist.Normal(z @ locs, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(u.sum(-1) + z[..., 1], 1.0), obs=torch.tensor(x))

    def guide():
        with pyro.plate("rows", COPIES):
            pyro.sample("u", dist.Delta(torch.tensor([0.2, 0.4]), event_dim=1).expand([COPIES]))

    found = posterior(model, guide)
    prior = probs.log() + dist.Normal(locs, 1.0).log_prob(torch.tensor([0.2, 0.4])).sum(-1)
    both = prior + dist.Normal(torch.tensor([0.6, 1.6]), 1.0).log_prob(torch.tensor(x))
    expected = both.logsumexp(0) - prior.logsumexp(0)
    assert found.draws["z"].shape == (COPIES, 2)
    assert_frequency(found.draws["z"][1:, 1], both.softmax(0)[1].item())
    assert found.log_likelihood["x"][0] == 0
    torch.testing.assert_close(found.log_likelihood["x"][1:], expected.expand(COPIES - 1))


def test_a_chain_is_drawn_together():
    initial, move = torch.tensor([0.5, 0.5]), torch.tensor([[0.8, 0.2], [0.3, 0.7]])
    y = torch.tensor([0.3, -0.2, 1.4])

    def model():
        with pyro.plate("copies", COPIES):
            probs = initial
            for t in pyro.markov(range(3)):
                shift = pyro.sample(f"shift_{t}", dist.Normal(0.0, 1.0))
                s = pyro.sample(f"s_{t}", dist.Categorical(probs), infer=PARALLEL)
                pyro.sample(f"y_{t}", dist.Normal(s + shift, 1.0), obs=y[t])
                probs = move[s]

    def guide():
        with pyro.plate("copies", COPIES):
            for t in range(3):
                pyro.sample(f"shift_{t}", dist.Delta(torch.tensor(0.1)).expand([COPIES]))

    found = posterior(model, guide)
    assert found.log_likelihood == {}
    assert found.behind == {f"y_{t}": ["s_0", "s_1", "s_2"] for t in range(3)}
    draws = torch.stack([found.draws[f"s_{t}"] for t in range(3)], -1)
    chains = torch.tensor(list(itertools.product((0, 1), repeat=3)))
    a, b, c = chains.T
    joint = (initial[a] * move[a, b] * move[b, c]).log()
    joint = joint + dist.Normal(chains + 0.1, 1.0).log_prob(y).sum(-1)
    for chain, probability in zip(chains, joint.softmax(0).tolist(), strict=True):
        assert_frequency((draws == chain).all(-1), probability)


def test_rows_that_share_a_site():
    x = torch.tensor([1.5, -0.5])

    def model():
        with pyro.plate("copies", COPIES, dim=-2):
            k = pyro.sample("k", dist.Bernoulli(0.4), infer=PARALLEL)
            pyro.sample("one_value", dist.Categorical(torch.ones(1)), infer=PARALLEL)
            pyro.sample("alone", dist.Bernoulli(0.1), infer=PARALLEL)
            with pyro.plate("rows", 2, dim=-1):
                z = pyro.sample("z", dist.Bernoulli(0.2 + 0.5 * k), infer=PARALLEL)
                pyro.deterministic("twice", 2 * z, event_dim=0)
                pyro.sample("x", dist.Normal(2 * z, 1.0), obs=x)

    found = posterior(model, nesting=2)
    assert found.behind == {"x": ["k", "z"]}
    assert found.log_likelihood == {}
    shapes = {name: tuple(value.shape) for name, value in found.draws.items()}
    ones = dict.fromkeys(("k", "one_value", "alone"), (COPIES, 1))
    assert shapes == {**ones, "z": (COPIES, 2)}
    p = torch.tensor([[0.8, 0.2], [0.3, 0.7]])  # of z, given k
    joint = p * dist.Normal(torch.tensor([0.0, 2.0]), 1.0).log_prob(x[:, None, None]).exp()
    of_k = torch.tensor([0.6, 0.4]) * joint.sum(-1).prod(0)
    of_k = of_k / of_k.sum()
    of_z = of_k @ (joint[0, :, 1] / joint[0].sum(-1))
    assert_frequency(found.draws["k"], of_k[1].item())
    assert_frequency(found.draws["z"][:, 0], of_z.item())
    assert_frequency(found.draws["alone"], 0.1)


def test_two_observations_of_one_row_have_no_sum_each():
    def model():
        with pyro.plate("rows", 1):
            z = pyro.sample("z", dist.Bernoulli(0.4), infer=PARALLEL)
            for name in "xy":
                pyro.sample(name, dist.Normal(z, 1.0), obs=torch.zeros(1))

    found = posterior(model)
    assert (found.log_likelihood, found.behind) == ({}, {"x": ["z"], "y": ["z"]})
    assert found.draws["z"].shape == (1,)


def test_draws_in_place_of_all_values_are_refused():
    def model():
        pyro.sample("z", dist.Bernoulli(0.4), infer={**PARALLEL, "num_samples": 3})

    with pytest.raises(ValueError, match="z has num_samples"):
        posterior(model, nesting=0)


def test_a_draw_does_not_underflow():
    never = torch.tensor([-torch.inf, 0.0])

    def model():
        for t in pyro.markov(range(3)):
            s = pyro.sample(f"s_{t}", dist.Categorical(logits=never), infer=PARALLEL)
            pyro.sample(f"y_{t}", dist.Normal(50.0 * (1 - s), 1.0), obs=torch.tensor(50.0))

    assert all(posterior(model, nesting=0).draws.values())


def test_impossible_data_are_named():
    def model():
        z = pyro.sample("z", dist.Bernoulli(0.4), infer=PARALLEL)
        inside = dist.Uniform(z, z + 1.0, validate_args=False)
        pyro.sample("x", inside, obs=torch.tensor(3.0))

    with pytest.raises(ValueError, match=r"z cannot be drawn: .* density of x is 0"):
        posterior(model, nesting=0)
