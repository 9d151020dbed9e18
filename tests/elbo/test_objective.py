"""What is minimised: weights of the KL by training step, free bits, the control variate."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import autoguide as ag

import pyro_kl
from pyro_kl import TraceKL_ELBO

from .models import f64, params, quiet, two_sites, two_sites_guide

# --- objectives ---------------------------------------------------------------------------------


OBJECTIVES = {
    "plain": {},
    "beta": {"beta": 0.3},
    "beta by site": {"beta": {"a": 0.2, "b": 2.0}},
    "free bits": {"free_bits": 0.3},
    "free bits by site": {"free_bits": {"a": 5.0}, "beta": 0.5},
    "capacity": {"capacity": 0.1, "beta": 7.0},
    "large capacity": {"capacity": 10.0, "beta": {"b": 3.0} and 3.0},
    "capacity by site": {"capacity": {"a": 1.0, "b": 0.01}},
    "schedule": {"beta": pyro_kl.LinearWarmup(10)},
    "schedule by site": {"beta": {"a": pyro_kl.Cyclical(10, 2)}},
    "capacity schedule": {"capacity": lambda step: 0.05 * step},
}


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_finite_differences_of_the_loss_are_the_gradient(name, particles):
    elbo = TraceKL_ELBO(num_particles=particles, **OBJECTIVES[name])
    elbo.step_count = 3
    elbo.loss_and_grads(two_sites, two_sites_guide)
    elbo.step_count = 3
    step = 1e-5
    for parameter in params():
        gradient = parameter.grad.clone()
        for i in range(parameter.numel()):
            losses = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[i] += sign * step
                losses.append(elbo.loss(two_sites, two_sites_guide))
                with torch.no_grad():
                    parameter.view(-1)[i] -= sign * step
            slope = (losses[0] - losses[1]) / (2 * step)
            assert gradient.reshape(-1)[i].item() == pytest.approx(slope, abs=1e-8, rel=1e-8)


def test_the_report_holds_the_truth_beside_the_objective():
    elbo = TraceKL_ELBO(beta={"a": 0.25}, free_bits={"b": 5.0})
    loss = elbo.loss_and_grads(two_sites, two_sites_guide)
    report = elbo.report
    a, b = report["a"].nats, report["b"].nats
    assert report.elbo == pytest.approx(-(a + b), rel=1e-12)
    assert report.loss == pytest.approx(loss, rel=1e-12) == pytest.approx(0.25 * a + 5.0)
    assert (report["a"].weight, report["b"].weight) == (0.25, 0.0)
    assert report.objective == "beta[a] = 0.25, free_bits[b] = 5"


def test_particles_are_averaged_before_they_are_bent():
    """KL of two particles 0 and 2 with 1 nat free: 1, not (1 + 2) / 2."""

    def model():
        pyro.sample("k", dist.Bernoulli(0.5))
        pyro.sample("z", dist.Normal(0.0, 1.0))

    values = iter([0.0, 1.0] * 10)

    def guide():
        k = next(values)
        pyro.sample("k", dist.Delta(torch.tensor(k)))
        pyro.sample("z", dist.Normal(2.0 * k, 1.0))

    elbo = TraceKL_ELBO(num_particles=2, free_bits={"z": 1.0})
    assert elbo.loss(model, guide) == pytest.approx(1.0 + math.log(2.0), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": -1.0}, "beta must be a number of at least 0"),
        ({"beta": {"a": "much"}}, r"beta\['a'\] must be a number"),
        ({"free_bits": float("nan")}, "free_bits must be a number"),
        ({"free_bits": 1.0, "capacity": 1.0}, "one of them, not both"),
        ({"beta": {"a": 1.0}, "capacity": 1.0}, "needs one beta"),
    ],
)
def test_bad_objectives(arguments, message):
    with pytest.raises(ValueError, match=message):
        TraceKL_ELBO(**arguments)


def test_unknown_sites_are_named():
    with pytest.raises(ValueError, match=r"named in beta, .*: c, d\. Its latent sites are: a, b"):
        TraceKL_ELBO(beta={"c": 1.0, "a": 1.0}, free_bits={"d": 1.0}).loss(
            two_sites, two_sites_guide
        )


def test_schedules_at_their_ends():
    warmup = pyro_kl.LinearWarmup(100)
    assert [warmup(s) for s in (0, 99, 100, 101)] == [0.0, 0.99, 1.0, 1.0]
    assert pyro_kl.Constant(1.0)(10**9) == 1.0
    with pytest.raises(ValueError, match="at least 1"):
        pyro_kl.LinearWarmup(0)
    with pytest.raises(ValueError, match="ramp in"):
        pyro_kl.Cyclical(10, ramp=0.0)


@pytest.mark.parametrize(
    "schedule",
    [
        pyro_kl.Constant(0.5),
        pyro_kl.LinearWarmup(10, end=0.9),
        pyro_kl.LinearWarmup(1000, total=500),
        pyro_kl.Cyclical(100, cycles=4, total=110),
        lambda step: 0.1,
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_a_schedule_that_does_not_reach_one_is_told(schedule):
    with pytest.warns(UserWarning, match="ends at 0.*not at 1"):
        TraceKL_ELBO(beta=schedule)


def test_schedules_that_reach_one_are_silent():
    for schedule in (pyro_kl.LinearWarmup(10, total=11), pyro_kl.Cyclical(10, total=60)):
        TraceKL_ELBO(beta=schedule)


def test_minibatches_average_to_the_full_batch():
    data = f64([0.3, -1.2, 0.8, 2.0, 0.1, -0.4])

    def model(index):
        w = pyro.sample("w", dist.Normal(f64(0.0), f64(1.0)))
        with pyro.plate("data", 6, subsample=index):
            z = pyro.sample("z", dist.Normal(f64(0.0), f64(1.0)))
            pyro.sample("x", dist.Normal(w, f64(1.0)), obs=data[index] + 0 * z)

    def guide(index):
        loc = pyro.param("loc", lambda: torch.linspace(-1, 1, 6, dtype=torch.float64))
        pyro.sample("w", dist.Delta(f64(0.4)))
        with pyro.plate("data", 6, subsample=index):
            pyro.sample("z", dist.Normal(loc[index], f64(0.5)))

    elbo = TraceKL_ELBO()
    full = elbo.loss(model, guide, torch.arange(6))
    for size in (1, 2, 3):
        batches = torch.arange(6).split(size)
        losses = [elbo.loss(model, guide, batch) for batch in batches]
        assert sum(losses) / len(losses) == pytest.approx(full, abs=1e-6)
        assert elbo.report["z"].scale == 6 / size


@quiet
def test_minibatches_of_an_autoguide_average_to_the_full_batch():
    data = torch.tensor([0.3, -1.2, 0.8, 2.0])

    def model(index):
        with pyro.plate("data", 4, subsample=index):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(0 * z, 1.0), obs=data[index])

    def plates(index):
        return pyro.plate("data", 4, subsample=index)

    guide = ag.AutoNormal(model, create_plates=plates)
    elbo = TraceKL_ELBO()
    full = elbo.loss(model, guide, torch.arange(4))
    losses = [elbo.loss(model, guide, batch) for batch in torch.arange(4).split(2)]
    assert sum(losses) / 2 == pytest.approx(full, abs=1e-6)


# --- the control variate ------------------------------------------------------------------------


@pytest.mark.parametrize("as_module", [False, True])
def test_the_control_variate_is_unbiased_and_learns(as_module):
    """At the posterior of Normal data the noise of the prior cancels that of the likelihood.

    The exact KL leaves -4 eps of four data with unit variance, the sampled one adds -1 eps of the
    prior: a coefficient of -4 leaves nothing.
    """
    data = f64([0.3, 0.5, 0.4, 0.6])
    precision = 5.0

    def model():
        z = pyro.sample("z", dist.Normal(f64(0.0), f64(1.0)))
        with pyro.plate("data", 4):
            pyro.sample("x", dist.Normal(z, f64(1.0)), obs=data)

    def guide():
        loc = pyro.param("loc", lambda: data.sum() / precision)
        pyro.sample("z", dist.Normal(loc, f64(precision**-0.5)))

    gradients = {}
    for control in (False, True):
        pyro.set_rng_seed(0)
        pyro.clear_param_store()
        elbo = TraceKL_ELBO(control_variate=control)
        rows = []
        with pyro.validation_enabled(False):
            for _ in range(400):
                for parameter in params():
                    parameter.grad = None
                if as_module:
                    elbo.differentiable_loss(model, guide).backward()
                else:
                    elbo.loss_and_grads(model, guide)
                rows.append(pyro.param("loc").grad.item())
        gradients[control] = torch.tensor(rows[100:])
    assert elbo.control_variate.coefficient == pytest.approx(-4.0, abs=0.05)
    for rows in gradients.values():
        assert abs(rows.mean()) < 4.5 * rows.std() / math.sqrt(len(rows)) + 1e-9
    assert gradients[True].std() < 0.2 * gradients[False].std()
