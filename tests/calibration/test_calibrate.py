"""calibrate: a correct fit passes, a broken one does not; which models and guides it takes."""

import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import pyro_kl

X = torch.zeros(5)


def model(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 5):
        pyro.sample("x", dist.Normal(z, 2.0), obs=x)


def data_of(model, *args):
    """The data that a model observes, by name."""
    nodes = poutine.trace(model).get_trace(*args).nodes
    return {name: node["value"] for name, node in nodes.items() if node.get("is_observed")}


class Conjugate:
    """The posterior of `model`, for the data that its model observes."""

    def __init__(self, width=1.0, shift=0.0):
        self.width, self.shift = width, shift

    def __call__(self, model):
        precision = 1 + 5 / 4
        loc = data_of(model, X)["x"].sum() / 4 / precision + self.shift
        return lambda x: pyro.sample("z", dist.Normal(loc, self.width * precision**-0.5))


FEW = {"num_simulations": 12, "num_draws": 9, "progress": False}
ENOUGH = {"num_simulations": 60, "num_draws": 19, "progress": False}


def test_the_posterior_passes():
    found = pyro_kl.calibrate(model, Conjugate(), X, **ENOUGH)
    assert found.calibrated
    assert found["z"].verdict == "calibrated"
    assert max(map(len, str(found).splitlines())) <= 80
    assert "worst element" not in str(found)  # there is one alone


@pytest.mark.parametrize(
    ("fit", "verdict"),
    [
        (Conjugate(width=0.5), "too narrow"),
        (Conjugate(width=3.0), "too wide"),
        (Conjugate(shift=0.5), "draws too large"),
    ],
)
def test_a_broken_fit_does_not(fit, verdict):
    found = pyro_kl.calibrate(model, fit, X, **ENOUGH)
    assert not found.calibrated
    assert verdict in found["z"].verdict
    assert "not calibrated" in str(found)


# --- models --------------------------------------------------------------------------------------


def coins(heads):
    """A discrete latent, next to one of several elements, and a label that is summed out."""
    fair = pyro.sample("fair", dist.Bernoulli(0.5))
    with pyro.plate("coins", 3):
        p = pyro.sample("p", dist.Beta(2.0, 2.0))
        pyro.sample("heads", dist.Binomial(10, torch.where(fair > 0, 0.5, p)), obs=heads)


def posterior_of_coins(model):
    """The exact posterior: of `fair` by Bayes' rule, of p given it by conjugacy."""
    heads = data_of(model, torch.zeros(3))["heads"]
    of_fair = dist.Binomial(10, 0.5).log_prob(heads).sum()
    of_other = dist.BetaBinomial(2.0, 2.0, 10).log_prob(heads).sum()

    def guide(heads_of_the_arguments):
        fair = pyro.sample("fair", dist.Bernoulli(logits=of_fair - of_other))
        with pyro.plate("coins", 3):
            seen = torch.where(fair > 0, 0.0, 1.0)
            pyro.sample("p", dist.Beta(2 + seen * heads, 2 + seen * (10 - heads)))

    return guide


def test_discrete_sites_have_uniform_ranks_among_equal_draws():
    found = pyro_kl.calibrate(coins, posterior_of_coins, torch.zeros(3), seed=1000, **ENOUGH)
    assert found["fair"].verdict == "calibrated"
    assert found["p"].verdict == "calibrated"
    assert found["p"].shape == (3,)
    assert f"p     {found['p'].element}" in str(found)


def test_latents_that_the_model_sums_out_have_no_ranks():
    def clusters(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", 4):
            k = pyro.sample("k", dist.Categorical(torch.ones(2)), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(z[k], 1.0), obs=x)

    found = pyro_kl.calibrate(
        clusters,
        lambda model: lambda x: pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1)),
        torch.zeros(4),
        **FEW,
    )
    assert [row.site for row in found] == ["z"]
    assert found.left_out == ("k",)
    assert "Without ranks, as summed out or masked: k." in str(found)


def test_missing_data_have_no_ranks():
    def missing(x, mask):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 5):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=mask)

    seen = []

    def fit(model):
        seen.append(data_of(model, X, torch.arange(5) < 3)["x_observed"])
        return lambda x, mask: pyro.sample("z", dist.Normal(0.0, 1.0))

    found = pyro_kl.calibrate(missing, fit, X, torch.arange(5) < 3, **FEW)
    assert found.left_out == ("x_unobserved",)
    assert not seen[0].equal(seen[1])


def test_data_may_come_from_a_handler_and_by_keyword():
    def bare(*, rows):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", rows):
            pyro.sample("x", dist.Normal(z, 2.0))

    seen = []

    def fit(model):
        seen.append(poutine.trace(model).get_trace(rows=5).nodes["x"]["value"])
        return lambda rows: pyro.sample("z", dist.Normal(0.0, 1.0))

    pyro_kl.calibrate(poutine.condition(bare, data={"x": X}), fit, rows=5, **FEW)
    assert len(seen) == 12
    assert all(not x.equal(X) and not x.equal(seen[0]) for x in seen[1:])


def test_every_simulation_fits_from_the_start_and_leaves_nothing_behind():
    pyro.clear_param_store()
    pyro.param("of the user", torch.tensor(3.0))
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    def fit(model):
        assert not list(pyro.get_param_store())
        loc = pyro.param("loc", torch.randn(()))
        return lambda x: pyro.sample("z", dist.Normal(loc, 1.0))

    pyro_kl.calibrate(model, fit, X, **{**FEW, "num_simulations": 10})
    assert dict(pyro.get_param_store()) == {"of the user": torch.tensor(3.0)}
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    pyro.clear_param_store()


# --- what is refused -----------------------------------------------------------------------------


def with_factor(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.factor("f", -z.square())


def without_data(x):
    pyro.sample("z", dist.Normal(0.0, 1.0))


def without_latents(x):
    pyro.sample("x", dist.Normal(0.0, 1.0).expand([5]).to_event(1), obs=x)


def with_subsample(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 5, subsample_size=2) as rows:
        pyro.sample("x", dist.Normal(z, 2.0), obs=x[rows])


def with_scale(x):
    with poutine.scale(scale=0.5):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 2.0), obs=x[0])


def with_mask(x):
    with pyro.plate("rows", 5), poutine.mask(mask=torch.arange(5) < 3):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z.sum(), 2.0), obs=x[0])


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (with_factor, {}, "The model has the factor f"),
        (without_data, {}, "The model observes nothing"),
        (without_latents, {}, "The model has no latent"),
        (with_subsample, {}, "the plate 'rows' draws 2 of 5 rows"),
        (with_scale, {}, "different scales"),
        (with_mask, {}, "The model has no latent"),
        (model, {"num_simulations": 9}, "num_simulations=9 has to be at least 10"),
        (model, {"num_draws": 0}, "num_draws=0 has to be at least 1"),
        (model, {"processes": 0}, "processes=0 has to be at least 1"),
    ],
)
def test_what_is_refused(model, options, says):
    with pytest.raises(ValueError, match=says):
        pyro_kl.calibrate(model, Conjugate(), X, progress=False, **options)


def test_one_scale_for_all_sites_is_fine():
    assert pyro_kl.calibrate(poutine.scale(model, scale=0.2), Conjugate(), X, **FEW)


def amortised(x):
    pyro.sample("z", dist.Normal(x.mean(), 1.0))


@pytest.mark.parametrize(
    ("guide", "says"),
    [
        (amortised, "The guide draws z from the data in its arguments"),
        (lambda x: None, "The guide does not draw z"),
        (lambda x: pyro.sample("z", dist.Normal(torch.zeros(2), 1.0)), r"z has shape \(\) in the"),
        (None, "fit returned NoneType"),
    ],
)
def test_guides_that_are_refused(guide, says):
    with pytest.raises(ValueError, match=says):
        pyro_kl.calibrate(model, lambda model: guide, X, **FEW)


def test_a_guide_that_is_given_the_simulated_data_is_not():
    def fit(model):
        x = data_of(model, X)["x"]
        return lambda x_of_the_arguments: amortised(x)

    assert pyro_kl.calibrate(model, fit, X, **FEW)


def test_a_fit_that_fails_says_which_simulation():
    def fit(model):
        if data_of(model, X)["x"][0] > 0:
            return lambda x: pyro.sample("z", dist.Delta(torch.tensor(torch.nan)))
        return Conjugate()(model)

    says = r"Simulation (\d+) \(seed (\d+)\) failed with ValueError: The fitted guide draws nan"
    with pytest.raises(RuntimeError, match=says) as caught:
        pyro_kl.calibrate(model, fit, X, seed=7, **FEW)
    assert isinstance(caught.value.__cause__, ValueError)
    number, seed = map(int, re.match(says, str(caught.value)).groups())
    assert seed == number + 7
    with pytest.raises(RuntimeError, match=rf"Simulation 0 \(seed {seed}\)"):
        pyro_kl.calibrate(model, fit, X, seed=seed, **FEW)
