"""JitTraceKL_ELBO gives what TraceKL_ELBO gives, also at parameters that it was not traced at."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer import SVI, JitTraceMeanField_ELBO
from pyro.infer.autoguide import (
    AutoMultivariateNormal,
    AutoNormal,
)
from pyro.optim import Adam
from torch.jit import TracerWarning

import pyro_kl
from pyro_kl import JitTraceKL_ELBO, TraceKL_ELBO

from .models import ELBOS, jit

# --- jit ----------------------------------------------------------------------------------------


@jit
@pytest.mark.parametrize("num_particles", [1, 10])
@pytest.mark.parametrize("Elbo", ELBOS)
def test_jit_without_latents(Elbo, num_particles):
    data = torch.arange(10.0)

    def model(data):
        loc = pyro.param("loc", lambda: torch.zeros(()))
        pyro.sample("x", dist.Normal(loc, 1.0).expand_by(data.shape).to_event(1), obs=data)

    elbo = Elbo(num_particles=num_particles, strict_enumeration_warning=False)
    svi = SVI(model, lambda data: None, Adam({"lr": 1e-6}), elbo)
    losses = [svi.step(data) for _ in range(4)]
    assert losses[0] == pytest.approx(151.7, abs=0.1)


@jit
@pytest.mark.parametrize("Elbo", ELBOS)
def test_jit_with_batches_of_all_sizes(Elbo):
    def model(data):
        loc = pyro.param("loc", lambda: torch.zeros(()))
        with pyro.plate("data", data.shape[0]):
            pyro.sample("x", dist.Normal(loc, 1.0).expand([data.shape[0]]), obs=data)

    elbo = Elbo(strict_enumeration_warning=False, max_plate_nesting=1)
    svi = SVI(model, lambda data: None, Adam({"lr": 1e-6}), elbo)
    assert svi.step(torch.ones(10)) == pytest.approx(10 * 1.4189, rel=1e-3)
    assert svi.step(torch.ones(3)) == pytest.approx(3 * 1.4189, rel=1e-3)


@jit
@pytest.mark.parametrize("vectorize", [False, True])
@pytest.mark.parametrize("knobs", [{}, {"beta": 0.3}, {"free_bits": 2.0}, {"capacity": 0.1}])
def test_jit_gives_the_same_as_eager(knobs, vectorize):
    data = torch.tensor([0.2, 0.9, -0.3])

    def model(data):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(z, 1.0), obs=data)

    def guide(data):
        loc = pyro.param("loc", lambda: torch.tensor(0.7))
        pyro.sample("z", dist.Normal(loc, 0.4))

    results = {}
    for Elbo in ELBOS:
        pyro.clear_param_store()
        elbo = Elbo(num_particles=2, vectorize_particles=vectorize, max_plate_nesting=1, **knobs)
        elbo.loss_and_grads(model, guide, data)
        pyro.param("loc").grad = None
        pyro.set_rng_seed(1)
        loss = elbo.loss_and_grads(model, guide, data)
        results[Elbo] = loss, pyro.param("loc").grad.item(), elbo.report.kls["z"]
    assert results[TraceKL_ELBO] == pytest.approx(results[JitTraceKL_ELBO], abs=1e-5)


@jit
def test_jit_traces_methods_once():
    """Each access of a method makes another object."""

    class Both:
        runs = 0

        def model(self):
            self.runs += 1
            pyro.sample("z", dist.Normal(0.0, 1.0))

        def guide(self):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(1.0)), 1.0))

    both, elbo = Both(), JitTraceKL_ELBO()
    elbo.loss_and_grads(both.model, both.guide)
    runs = both.runs
    assert elbo.loss_and_grads(both.model, both.guide) == pytest.approx(0.5)
    assert both.runs == runs
    assert elbo.loss_and_grads(Both().model, both.guide) == pytest.approx(0.5)


@jit
def test_jit_traces_once_and_schedules_still_move():
    runs = []

    def model():
        runs.append(1)
        pyro.sample("z", dist.Normal(0.0, 1.0))

    def guide():
        loc = pyro.param("loc", lambda: torch.tensor(2.0))
        pyro.sample("z", dist.Normal(loc, 1.0))

    elbo = JitTraceKL_ELBO(beta=pyro_kl.LinearWarmup(4))
    losses = [elbo.loss_and_grads(model, guide) for _ in range(6)]
    assert len(runs) == 2  # once to find the parameters, once to trace
    assert losses == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0, 2.0], abs=1e-5)
    assert elbo.report.kl == pytest.approx(2.0, abs=1e-5)


@jit
def test_jit_with_an_autoguide_learns():
    def model(data):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=data)

    guide = AutoNormal(model)
    data = torch.tensor([1.0, -1.0])
    guide(data)
    svi = SVI(model, guide, Adam({"lr": 0.03}), JitTraceKL_ELBO(num_particles=5))
    for _ in range(400):
        svi.step(data)
    assert guide.median(data)["z"].tolist() == pytest.approx([0.8, -0.8], abs=0.1)


@jit
@pytest.mark.filterwarnings("ignore:The KL of these sites is sampled:UserWarning")
@pytest.mark.parametrize(
    "prior",
    [
        dist.Gamma(2.0, 1.0),
        dist.HalfCauchy(1.0),
        dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])),
        dist.LKJCholesky(3, 1.5),
    ],
    ids=lambda prior: type(prior).__name__,
)
@pytest.mark.parametrize("guide_type", [AutoNormal, AutoMultivariateNormal])
def test_jit_with_constrained_sites_gives_the_same_as_eager(guide_type, prior):
    """At parameters other than those that it was traced at."""

    def model():
        pyro.sample("z", prior)

    results = []
    for Elbo in ELBOS:
        pyro.clear_param_store()
        pyro.set_rng_seed(1)
        guide = guide_type(model)
        guide()
        elbo = Elbo(ignore_jit_warnings=True)
        elbo.loss_and_grads(model, guide)
        parameters = [p for _, p in sorted(pyro.get_param_store()._params.items())]
        for parameter in parameters:
            with torch.no_grad():
                parameter.add_(0.5)
            parameter.grad = None
        pyro.set_rng_seed(2)
        loss = elbo.loss_and_grads(model, guide)
        results.append(torch.cat([torch.tensor([loss]), *(p.grad.flatten() for p in parameters)]))
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning", "error::torch.jit.TracerWarning"
)
@pytest.mark.parametrize("device", [None, "cpu"])
def test_jit_with_a_beta_in_the_third_step_too(device):
    """torch optimises what it has traced from the second step on; nothing warns of the KL."""
    one = torch.ones(())

    def model():
        pyro.sample("z", dist.Beta(2 * one, 3 * one))

    def guide():
        a = pyro.param("a", one.clone(), constraint=constraints.positive)
        b = pyro.param("b", one.clone(), constraint=constraints.positive)
        pyro.sample("z", dist.Beta(a, b))

    results = []
    torch.set_default_device(device)  # with one, torch's own frame is what warnings name
    try:
        for Elbo in ELBOS:
            pyro.clear_param_store()
            svi = SVI(model, guide, Adam({"lr": 0.1}), Elbo())
            results.append([svi.step() for _ in range(3)])
    finally:
        torch.set_default_device(None)
    assert results[1] == pytest.approx(results[0], rel=1e-5)


def test_jit_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="control_variate"):
        JitTraceKL_ELBO(control_variate=True)


@jit
def test_pyros_own_traced_elbo_has_no_warning_of_our_formulas():
    """`ignore_jit_warnings` is off: what is told is about the model and the guide."""

    def model(x):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(()), torch.ones(())))
        scale = pyro.sample("scale", dist.LogNormal(torch.zeros(()), torch.ones(())))
        pyro.sample("x", dist.Normal(loc, scale), obs=x)

    def guide(x):
        loc = pyro.param("loc_loc", lambda: torch.tensor(1.0))
        scale = pyro.param("scale_loc", lambda: torch.tensor(-1.0))
        pyro.sample("loc", dist.Normal(loc, 2 * torch.ones(())))
        pyro.sample("scale", dist.LogNormal(scale, 0.1 * torch.ones(())))

    elbo = JitTraceMeanField_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TracerWarning)
        elbo.loss_and_grads(model, guide, torch.tensor(1.0))
