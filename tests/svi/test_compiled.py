"""A recorded step is the step that model and guide take, or the reason why it is not recorded."""

import copy
import re
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO, autoguide
from torch import nn

import pyro_kl
from models import problems

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).float()
COUNTS = torch.tensor([1.0, 2.0, 0.0, 3.0])
STEPS = 40


def regression(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def subsampled(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(y), subsample_size=10) as rows:
        pyro.sample("y", dist.Bernoulli(logits=x[rows] @ w), obs=y[rows])


def with_network(network):
    def model(x, y):
        pyro.module("network", network)
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Bernoulli(logits=network(x).squeeze(-1) + x @ w), obs=y)

    return model


def normal_guide(x, y):
    loc = pyro.param("loc", lambda: torch.zeros(3))
    sd = pyro.param("sd", lambda: torch.ones(3), constraint=constraints.positive)
    pyro.sample("w", dist.Normal(loc, sd).to_event(1))


def positive(name):
    return pyro.param(name, torch.tensor(1.5), constraint=constraints.positive)


def with_prior(prior, likelihood=lambda r: dist.Normal(r, 1.0)):
    """A model with one latent number, of a prior."""

    def model(x, **_):
        r = pyro.sample("r", prior())
        with pyro.plate("data", len(x)):
            pyro.sample("x", likelihood(r), obs=x)

    return model


def drawn_from(posterior):
    """A guide of one latent number."""
    return lambda x, **_: pyro.sample("r", posterior())


def real_guide(x, **_):
    loc = pyro.param("loc", torch.tensor(0.05))
    pyro.sample("r", dist.Normal(loc, positive("sd")))


WIDE = with_prior(lambda: dist.Normal(-3.0, 1.0))


def by_sign_of_a_parameter(x):
    loc = pyro.param("loc", torch.tensor(0.05))
    pyro.sample("r", dist.Normal(loc if loc > 0 else 2 * loc, positive("sd")))


def moving_uniform(x):
    loc, half = pyro.param("loc", torch.tensor(1.0)), positive("half") / 5
    pyro.sample("r", dist.Uniform(loc - half, loc + half))


def by_sign_of_a_draw(x):
    r = pyro.sample("r", dist.Normal(-3.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(r, 1.0 if r > -3 else 2.0), obs=x)


def by_sign_of_data(x):
    r = pyro.sample("r", dist.Normal(-3.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(r, 1.0 if x.sum() > 0 else 2.0), obs=x)


def of_chosen_rows(x):
    r = pyro.sample("r", dist.Normal(-3.0, 1.0))
    chosen = x[x > 0]
    with pyro.plate("data", len(chosen)):
        pyro.sample("x", dist.Normal(r, 1.0), obs=chosen)


def by_numpy(x):
    r = pyro.sample("r", dist.Normal(float(x.numpy().mean()), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(r, 1.0), obs=x)


def annealed(x, weight=1.0):
    with poutine.scale(scale=weight):
        r = pyro.sample("r", dist.Normal(-3.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(r, 1.0), obs=x)


def annealed_guide(x, weight=1.0):
    with poutine.scale(scale=weight):
        real_guide(x)


def by_flag(x, wide=False):
    r = pyro.sample("r", dist.Normal(-3.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(r, 2.0 if wide else 1.0), obs=x)


def flag_guide(x, wide=False):
    real_guide(x)


def rows(step):
    return (X, Y)


def counts(step):
    return (COUNTS,)


def guide_of(kind):
    return lambda: getattr(autoguide, kind)(regression)


def keep(function):
    return lambda: function


def pair(model, guide):
    return lambda: (model, guide)


AUTOGUIDES = (
    "AutoNormal", "AutoDiagonalNormal", "AutoMultivariateNormal", "AutoDelta", "AutoIAFNormal",
    "AutoLowRankMultivariateNormal", "AutoLaplaceApproximation",
)  # fmt: skip

#: name -> model and guide, arguments of a step, ELBO.
RECORDED = {
    "Trace_ELBO": (pair(regression, normal_guide), rows, Trace_ELBO),
    "TraceMeanField_ELBO": (pair(regression, normal_guide), rows, TraceMeanField_ELBO),
    **{kind: (lambda kind=kind: (regression, guide_of(kind)()), rows) for kind in AUTOGUIDES},
    "three particles": (
        pair(regression, normal_guide), rows, lambda: pyro_kl.TraceKL_ELBO(num_particles=3),
    ),
    "beta by the step": (
        pair(regression, normal_guide), rows,
        lambda: pyro_kl.TraceKL_ELBO(beta=lambda step: min(1.0, step / 30)),
    ),
    "free bits": (
        pair(regression, normal_guide), rows, lambda: pyro_kl.TraceKL_ELBO(free_bits=0.5),
    ),
    "balance": (
        pair(regression, normal_guide), rows, lambda: pyro_kl.TraceKL_ELBO(kl_balance=0.8),
    ),
    "subsample": (pair(subsampled, normal_guide), rows),
    "subsample in an autoguide": (
        lambda: (subsampled, autoguide.AutoNormal(subsampled)), rows,
    ),
    "batches of other shapes": (
        pair(regression, normal_guide), lambda step: (X[: 40 - step % 3], Y[: 40 - step % 3]),
    ),
    "other dtype": (
        pair(WIDE, real_guide), lambda step: (COUNTS if step < 20 else COUNTS.double(),),
    ),
    "network": (lambda: (with_network(nn.Linear(3, 1)), normal_guide), rows),
    "dropout": (
        lambda: (with_network(nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.5))), normal_guide),
        rows,
    ),
    "gamma": (
        pair(
            with_prior(lambda: dist.Gamma(2.0, 1.0), dist.Poisson),
            drawn_from(lambda: dist.Gamma(positive("a"), positive("b"))),
        ),
        counts,
    ),
    "beta": (
        pair(
            with_prior(lambda: dist.Beta(2.0, 1.0), lambda r: dist.Geometric(r)),
            drawn_from(lambda: dist.Beta(positive("a"), positive("b"))),
        ),
        counts,
    ),
    "half-Cauchy by a quadrature": (
        pair(
            with_prior(lambda: dist.HalfCauchy(1.0), lambda r: dist.Normal(0.0, r)),
            drawn_from(lambda: dist.LogNormal(0.0, positive("sd"))),
        ),
        counts,
    ),
    "score function": (
        pair(
            with_prior(lambda: dist.Bernoulli(0.3)),
            drawn_from(
                lambda: dist.Bernoulli(
                    pyro.param("q", torch.tensor(0.5), constraint=constraints.unit_interval)
                )
            ),
        ),
        counts,
    ),
    "flag": (pair(by_flag, flag_guide), lambda step: (COUNTS, step > 20)),
    "annealed": (pair(annealed, annealed_guide), lambda step: (COUNTS, min(1.0, 0.1 + step / 40))),
}  # fmt: skip

#: The same with the warning that comes.
WARNED = {
    "branch on a draw": (
        pair(by_sign_of_a_draw, real_guide), counts, "depends on a draw: by_sign_of_a_draw",
    ),
    "rejection": (
        pair(
            with_prior(lambda: dist.VonMises(0.0, 1.0)),
            drawn_from(lambda: dist.VonMises(0.1, positive("k"))),
        ),
        counts, "depends on a draw: site 'r'",
    ),
    "NumPy": (pair(by_numpy, real_guide), counts, "numpy at by_numpy .* takes the values out"),
    "batch normalisation": (
        lambda: (with_network(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))), normal_guide),
        rows, "running_mean",
    ),
    "branch on a parameter": (
        pair(WIDE, by_sign_of_a_parameter), counts, "read another number",
    ),
    "branch on data": (
        pair(by_sign_of_data, real_guide),
        lambda step: (COUNTS if step < 20 else -COUNTS,), "read another number",
    ),
    "chosen rows": (
        pair(of_chosen_rows, real_guide),
        lambda step: (COUNTS if step < 20 else COUNTS - 1.5,), "read another number",
    ),
    "infinite KL": (
        pair(
            with_prior(lambda: dist.Uniform(-2.0, 2.0)),
            moving_uniform,
        ),
        counts, "is inf at r",
    ),
}  # fmt: skip


def fitted(make, batch, elbo, compile, lr=0.05):
    """Losses and parameters of a short fit."""
    pyro.clear_param_store()
    pyro.set_rng_seed(1)
    model, guide = make()
    svi = pyro_kl.SVI(
        model, guide, torch.optim.Adam, elbo(), optim_args={"lr": lr}, compile=compile
    )
    losses = [svi.step(*batch(step)) for step in range(STEPS)]
    leaves = pyro.get_param_store()._params
    return losses, {name: leaf.detach().clone() for name, leaf in leaves.items()}


def assert_same(usual, recorded):
    """The bits of the gradients are the same; a schedule's levels have another precision."""
    torch.testing.assert_close(recorded[0], usual[0], rtol=1e-5, atol=1e-5)
    assert usual[1].keys() == recorded[1].keys()
    for name, leaf in usual[1].items():
        torch.testing.assert_close(recorded[1][name], leaf, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", RECORDED.values(), ids=RECORDED)
def test_recorded(case):
    """With the same seed, the same trajectory, and not a word."""
    make, batch, elbo = (*case, pyro_kl.TraceKL_ELBO)[:3]
    usual = fitted(make, batch, elbo, None)
    assert_same(usual, fitted(make, batch, elbo, "fx"))


@pytest.mark.parametrize("case", WARNED.values(), ids=WARNED)
def test_warned(case):
    """What cannot be recorded, or only for some steps, is said once, and the fit is the same."""
    make, batch, message = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        usual = fitted(make, batch, pyro_kl.TraceKL_ELBO, None)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        recorded = fitted(make, batch, pyro_kl.TraceKL_ELBO, "fx")
    (compiled,) = [str(one.message) for one in said if "compiled" in str(one.message)]
    assert re.search(message, compiled)
    assert_same(usual, recorded)


@pytest.mark.parametrize(
    "name",
    ["breast_cancer", "hierarchical_logistic", "eight_schools_full_rank", "minibatches", "vae"],
)
def test_models_of_the_benchmark(name):
    """They are recorded, too."""

    def fit(compile):
        problem = getattr(problems, name)()
        make = pair(problem.model, problem.guide)
        return fitted(make, problem.batch, pyro_kl.TraceKL_ELBO, compile, problem.lr)

    assert_same(fit(None), fit("fx"))


def by_table(x, weight=1.0):
    r = pyro.sample("r", dist.Normal(-3.0, {0.5: 2.0}.get(weight, 1.0)))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(r, 1.0 + 0 * weight), obs=x)


def test_a_float_that_decides_something_is_a_constant_of_a_record():
    """As an input it would be no key of a table."""
    weights = [0.5, 1.0, 1.0, 0.5, 2.0]  # in a record for 1.0 as an input, 0.5 is no key either

    def batch(step):
        return (COUNTS, weights[step % len(weights)])

    make = pair(by_table, lambda x, weight: real_guide(x))
    usual = fitted(make, batch, pyro_kl.TraceKL_ELBO, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(usual, fitted(make, batch, pyro_kl.TraceKL_ELBO, "fx"))


def test_a_copy_goes_on_as_that_of_an_eager_fit():
    def losses(compile):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        svi = pyro_kl.SVI(
            regression, normal_guide, torch.optim.Adam, pyro_kl.TraceKL_ELBO(),
            optim_args={"lr": 0.05}, compile=compile,
        )  # fmt: skip
        svi.run(5, X, Y)
        return copy.deepcopy(svi).run(5, X, Y).losses

    torch.testing.assert_close(losses("fx"), losses(None), rtol=1e-5, atol=1e-5)
