"""TraceKL_ELBO wherever Pyro takes an ELBO: what Pyro's own suite asks of TraceMeanField_ELBO."""

import copy
import pickle
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.contrib.cevae import TraceCausalEffect_ELBO
from pyro.distributions import constraints
from pyro.infer import SVI, Trace_ELBO, config_enumerate
from pyro.infer.autoguide import (
    AutoDelta,
    AutoNormal,
    AutoNormalMessenger,
)
from pyro.optim import Adam
from torch.distributions import kl_divergence

import pyro_kl
from pyro_kl import JitTraceKL_ELBO, TraceKL_ELBO

from .models import ELBOS, normal_guide, normal_model, ok

# --- valid models -------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [True, False])
def test_nothing_at_all(strict):
    def nothing():
        pass

    assert ok(nothing, nothing, TraceKL_ELBO(strict_enumeration_warning=strict)) == 0.0


def test_only_observations():
    def model():
        loc = pyro.param("loc", torch.zeros(2))
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=torch.ones(2))

    elbo = TraceKL_ELBO()
    loss = ok(model, lambda: None, elbo)
    assert loss == pytest.approx(-dist.Normal(0.0, 1.0).log_prob(torch.ones(2)).sum().item())
    assert elbo.report.kl == 0


@pytest.mark.parametrize("mask", [True, False])
def test_distributions_that_carry_a_mask(mask):
    def model():
        x = pyro.sample("x", dist.Normal(0.0, 1.0).mask(mask))
        pyro.sample("y", dist.Normal(x, 1.0))

    def guide():
        loc = pyro.param("loc", torch.tensor(1.0))
        x = pyro.sample("x", dist.Normal(loc, 1.0).mask(mask))
        pyro.sample("y", dist.Normal(x, 1.0))

    assert ok(model, guide, TraceKL_ELBO()) == pytest.approx(0.5 if mask else 0.0, abs=1e-5)


@pytest.mark.parametrize("num_particles", [1, 2])
@pytest.mark.parametrize(
    "mask",
    [
        torch.tensor(True),
        torch.tensor(False),
        torch.tensor([True]),
        torch.tensor([False]),
        torch.tensor([False, True, False]),
    ],
    ids=str,
)
def test_partly_observed(mask, num_particles):
    data = torch.tensor([7.0, 7.0, 7.0])

    def model():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        with pyro.plate("plate", 3):
            pyro.sample("y", dist.Normal(x, 1.0), obs=data, obs_mask=mask)

    def guide():
        loc = pyro.param("loc", torch.zeros(()))
        x = pyro.sample("x", dist.Normal(loc, 1.0))
        with pyro.plate("plate", 3), poutine.mask(mask=~mask):
            pyro.sample("y_unobserved", dist.Normal(x, 1.0))

    elbo = TraceKL_ELBO(num_particles=num_particles, vectorize_particles=True)
    ok(model, guide, elbo)
    assert elbo.report["y_unobserved"].nats == pytest.approx(0.0, abs=1e-6)
    assert elbo.report["y_unobserved"].exact


def test_a_bad_observation_mask():
    mask = torch.tensor([[False, False], [False, True], [True, False]])

    def model():
        with pyro.plate("plate", 3):
            distribution = dist.MultivariateNormal(torch.zeros(2), torch.eye(2))
            pyro.sample("y", distribution, obs=torch.zeros(3, 2), obs_mask=mask)

    with pytest.raises(ValueError, match="Invalid obs_mask shape"):
        TraceKL_ELBO().loss(model, lambda: None)


@pytest.mark.parametrize("scale", [1, 0.1, torch.tensor(0.5), torch.tensor([0.1, 0.9])], ids=str)
@pytest.mark.parametrize("mask", [None, False, torch.tensor([False, True])], ids=str)
def test_scaled_and_masked_observations(scale, mask):
    data = torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])

    def model():
        c = pyro.sample("c", dist.LogNormal(0.0, 1.0).expand([3]).to_event(1))
        with pyro.plate("data", 2), poutine.scale(scale=scale):
            with poutine.mask(mask=True if mask is None else mask):
                pyro.sample("obs", dist.Dirichlet(c), obs=data)

    def guide():
        loc = pyro.param("loc", torch.zeros(3))
        sd = pyro.param("sd", torch.ones(3), constraint=constraints.positive)
        pyro.sample("c", dist.LogNormal(loc, sd).to_event(1))

    ok(model, guide, TraceKL_ELBO())


@pytest.mark.parametrize("vectorize", [False, True])
def test_plates_in_plates(vectorize):
    def model():
        with pyro.plate("outer", 3, dim=-1):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            with pyro.plate("inner", 2, dim=-2):
                b = pyro.sample("b", dist.Normal(a, 1.0))
                assert b.shape[-2:] == (2, 3)
                pyro.sample("c", dist.Normal(b, 1.0), obs=torch.zeros(2, 3))

    def guide():
        loc = pyro.param("loc", torch.ones(3))
        with pyro.plate("outer", 3, dim=-1):
            pyro.sample("a", dist.Normal(loc, 1.0))
            with pyro.plate("inner", 2, dim=-2):
                pyro.sample("b", dist.Normal(loc, 1.0))

    elbo = TraceKL_ELBO(num_particles=4, vectorize_particles=vectorize, max_plate_nesting=2)
    ok(model, guide, elbo)
    assert elbo.report["a"].nats == pytest.approx(1.5, abs=1e-5)
    assert elbo.report["a"].shape == (3,)
    assert elbo.report["b"].shape == (2, 3)


def test_plates_that_are_not_nested_are_refused():
    def model():
        pyro.sample("x", dist.Normal(torch.zeros(3), 1.0))  # no plate for the batch

    def guide():
        pyro.sample("x", dist.Normal(torch.zeros(3), 1.0))

    with pytest.raises(ValueError, match="invalid log_prob shape"):
        TraceKL_ELBO().loss(model, guide)


def test_shapes_that_differ_are_refused():
    def model():
        pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    def guide():
        pyro.sample("x", dist.Normal(torch.zeros(1), 1.0).to_event(1))

    with pytest.raises(ValueError, match=r"shapes (disagree|.* differ)"):
        TraceKL_ELBO().loss(model, guide)
    with (
        pyro.validation_enabled(False),
        pytest.raises(ValueError, match=r"event shapes .* differ"),
    ):
        TraceKL_ELBO().loss(model, guide)


def test_a_value_outside_of_the_support_is_refused_as_pyro_does():
    def model():
        pyro.sample("x", dist.Gamma(2.0, 1.0), obs=torch.tensor(-1.0))

    with pytest.raises(ValueError, match="Error while computing log_prob at site 'x'"):
        TraceKL_ELBO().loss(model, lambda: None)


def test_sites_marked_for_enumeration_are_warned_about():
    def model():
        pyro.sample("x", dist.Bernoulli(0.5))

    @config_enumerate
    def guide():
        pyro.sample("x", dist.Bernoulli(0.3))

    with pytest.warns(UserWarning, match="TraceEnumKL_ELBO"):
        TraceKL_ELBO().loss(model, guide)


@pytest.mark.filterwarnings("ignore:Found vars in model but not guide:UserWarning")
def test_enumeration_in_the_model_is_warned_about():
    @config_enumerate
    def model():
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("x", dist.Normal(k, 1.0), obs=torch.tensor(0.5))

    with pytest.warns(UserWarning, match=r"does not enumerate k.*prior.*TraceEnumKL_ELBO"):
        TraceKL_ELBO().loss(model, lambda: None)


@pytest.mark.parametrize("Elbo", ELBOS)
def test_arguments_come_in_the_order_of_trace_elbos(Elbo):
    given = (5, 2, None, True, False, True, {"check_trace": False}, True)
    ours, theirs = vars(Elbo(*given, beta=0.5)), vars(Trace_ELBO(*given))
    assert {name: ours[name] for name in theirs} == theirs


def test_a_site_sampled_twice_is_refused():
    def model():
        pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(0.0, 1.0))

    with pytest.raises(RuntimeError, match="Multiple sample sites named 'x'"):
        TraceKL_ELBO().loss(model, normal_guide)


def test_sequential_plates():
    def model():
        for i in pyro.plate("plate", 3):
            pyro.sample(f"x_{i}", dist.Normal(0.0, 1.0))

    def guide():
        loc = pyro.param("loc", torch.tensor(1.0))
        for i in pyro.plate("plate", 3):
            pyro.sample(f"x_{i}", dist.Normal(loc, 1.0))

    assert ok(model, guide, TraceKL_ELBO()) == pytest.approx(1.5, abs=1e-5)


def test_deterministic_and_factor_sites():
    def model():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.deterministic("twice", 2 * x)
        pyro.factor("bonus", torch.tensor(-3.0))

    elbo = TraceKL_ELBO()
    loss = ok(model, normal_guide, elbo)
    exact = kl_divergence(dist.Normal(0.3, 0.5), dist.Normal(0.0, 1.0)).item()
    assert loss == pytest.approx(3.0 + exact, abs=1e-5)
    assert [row.site for row in elbo.report] == ["bonus", "x"]


@pytest.mark.parametrize("has_rsample", [True, False])
def test_factors_of_the_guide_count(has_rsample):
    def guide():
        normal_guide()
        pyro.factor("penalty", torch.tensor(2.0), has_rsample=has_rsample)

    without = TraceKL_ELBO().loss(lambda: pyro.sample("x", dist.Normal(0.0, 1.0)), normal_guide)
    with_factor = ok(lambda: pyro.sample("x", dist.Normal(0.0, 1.0)), guide, TraceKL_ELBO())
    assert with_factor == pytest.approx(without + 2.0, abs=1e-5)


# --- subclasses that look at single particles ---------------------------------------------------


class Causal(TraceCausalEffect_ELBO, TraceKL_ELBO):
    """CEVAE's loss, with an exact KL."""


def causal_model():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("t", dist.Bernoulli(logits=z), obs=torch.tensor(1.0))


def causal_guide():
    loc = pyro.param("loc", lambda: torch.tensor(0.7))
    t = pyro.sample("t", dist.Bernoulli(logits=loc), obs=torch.tensor(1.0))
    pyro.sample("z", dist.Normal(loc * t, 0.5))


@pytest.mark.filterwarnings("ignore:Found non-auxiliary vars in:UserWarning")
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad:UserWarning")
@pytest.mark.parametrize("vectorize", [False, True])
def test_a_subclass_that_changes_the_loss_of_a_particle_is_called(vectorize):
    """Pyro's own loss, but for the exact KL in place of the sampled one."""
    results = {}
    kwargs = dict(num_particles=300, vectorize_particles=vectorize, max_plate_nesting=0)
    for Elbo in (Causal, TraceCausalEffect_ELBO):
        elbo = Elbo(**kwargs)
        elbo.loss_and_grads(causal_model, causal_guide)
        pyro.param("loc").grad = None
        pyro.set_rng_seed(1)
        loss = elbo.loss_and_grads(causal_model, causal_guide)
        results[Elbo] = loss, pyro.param("loc").grad.item()
        assert elbo.loss(causal_model, causal_guide) == pytest.approx(loss, abs=0.2)
        if Elbo is Causal:
            assert elbo.step_count == 2
            assert elbo.report["z"].method == "closed form"
            assert "changed by Causal._differentiable_loss_particle" in elbo.report.objective
    ours, theirs = results[Causal], results[TraceCausalEffect_ELBO]
    assert ours == pytest.approx(theirs, abs=0.15)  # 300 draws of log q - log p
    log_q = dist.Bernoulli(logits=torch.tensor(0.7)).log_prob(torch.tensor(1.0)).item()
    pyro.set_rng_seed(1)
    elbo = Causal(**kwargs)
    loss = elbo.loss_and_grads(causal_model, causal_guide)
    assert elbo.report.loss == pytest.approx(loss, rel=1e-6)
    assert loss == pytest.approx(-elbo.report.elbo - log_q, rel=1e-5)


def test_what_a_subclass_of_single_particles_cannot_have_is_refused():
    class Borrowed(TraceKL_ELBO):
        _differentiable_loss_particle = TraceCausalEffect_ELBO._differentiable_loss_particle

    with pytest.raises(TypeError, match=r"class Borrowed\(TraceCausalEffect_ELBO, TraceKL_ELBO\)"):
        Borrowed().loss(causal_model, causal_guide)
    with pytest.raises(ValueError, match="particle changes the loss of single"):
        Causal(free_bits=1.0).loss(causal_model, causal_guide)
    with pytest.raises(ValueError, match="derive from TraceKL_ELBO"):
        type("Jit", (TraceCausalEffect_ELBO, JitTraceKL_ELBO), {})()


# --- modules, optimisers, functional transforms -------------------------------------------------


def test_as_a_module_with_a_torch_optimiser():
    with pyro.settings.context(module_local_params=True):
        guide = AutoNormal(normal_model)
        module = TraceKL_ELBO(num_particles=8)(torch.nn.Module(), guide)
        module.model = normal_model_module()
        module()
        optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
        for _ in range(300):
            optimizer.zero_grad()
            module().backward()
            optimizer.step()
    assert guide.median()["x"].item() == pytest.approx(0.25, abs=0.06)


def normal_model_module():
    class Model(torch.nn.Module):
        def forward(self):
            normal_model()

    return Model()


def test_functional_gradients():
    class Guide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self):
            pyro.sample("x", dist.Normal(self.loc, 1.0))

    class Model(torch.nn.Module):
        def forward(self):
            pyro.sample("x", dist.Normal(0.0, 1.0))

    module = TraceKL_ELBO()(Model(), Guide())

    def loss(parameters):
        return torch.func.functional_call(module, parameters, ())

    gradient = torch.func.grad(loss)(dict(module.named_parameters()))
    assert gradient["guide.loc"].item() == pytest.approx(0.5, abs=1e-6)


def test_copies_and_pickles():
    elbo = TraceKL_ELBO(beta={"x": 0.5}, num_particles=3)
    elbo.loss_and_grads(normal_model, normal_guide)
    for other in (copy.deepcopy(elbo), pickle.loads(pickle.dumps(elbo))):
        pyro.set_rng_seed(3)
        first = elbo.loss(normal_model, normal_guide)
        pyro.set_rng_seed(3)
        assert other.loss(normal_model, normal_guide) == first
        assert other.step_count == 1


def test_the_same_seed_gives_the_same_loss():
    losses = []
    for _ in range(2):
        pyro.clear_param_store()
        pyro.set_rng_seed(5)
        svi = SVI(normal_model, AutoNormal(normal_model), Adam({"lr": 0.1}), TraceKL_ELBO())
        losses.append([svi.step() for _ in range(5)])
    assert losses[0] == losses[1]


def test_evaluate_loss_takes_no_step():
    elbo = TraceKL_ELBO(beta=pyro_kl.LinearWarmup(10))
    svi = SVI(normal_model, normal_guide, Adam({"lr": 0.1}), elbo)
    svi.evaluate_loss()
    assert elbo.step_count == 0
    svi.step()
    assert elbo.step_count == 1


# --- inference that gets somewhere --------------------------------------------------------------


@pytest.mark.parametrize("guide_type", [AutoNormal, AutoNormalMessenger])
def test_posterior_of_normal_data(guide_type):
    data = torch.tensor([-0.1, 0.3, 0.2, 0.7, 0.1])

    def model():
        loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
        with pyro.plate("data", len(data)):
            pyro.sample("x", dist.Normal(loc, 0.5), obs=data)

    guide = guide_type(model)
    guide()
    elbo = TraceKL_ELBO(num_particles=10, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.99}), elbo)
    for _ in range(400):
        svi.step()
    precision = len(data) / 0.25 + 0.25
    assert guide.median()["loc"].item() == pytest.approx(
        data.sum().item() / 0.25 / precision, abs=0.03
    )
    scale = next(v for k, v in pyro.get_param_store().items() if "scales.loc" in k)
    assert scale.item() == pytest.approx(precision**-0.5, rel=0.15)


def test_map_of_a_gamma():
    def model():
        rate = pyro.sample("rate", dist.Gamma(3.0, 2.0))
        pyro.sample("x", dist.Poisson(rate), obs=torch.tensor(4.0))

    guide = AutoDelta(model)
    svi = SVI(model, guide, Adam({"lr": 0.05}), TraceKL_ELBO())
    for _ in range(400):
        svi.step()
    assert guide.median()["rate"].item() == pytest.approx(6.0 / 3.0, abs=0.02)


# --- other shapes of trouble --------------------------------------------------------------------


def test_one_warning_not_one_for_each_particle():
    def model():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(x, 1.0))

    def guide():
        loc = pyro.param("loc", torch.tensor(0.0))
        y = pyro.sample("y", dist.Normal(loc, 1.0))
        pyro.sample("x", dist.Normal(y, 1.0))

    elbo = TraceKL_ELBO(num_particles=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            elbo.loss_and_grads(model, guide)
    assert len(caught) == 1
    assert "y: its prior depends on x" in str(caught[0].message)


def test_structure_may_change_from_step_to_step():
    def model(deep):
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        if deep:
            pyro.sample("y", dist.Normal(x, 1.0))

    def guide(deep):
        loc = pyro.param("loc", torch.tensor(1.0))
        x = pyro.sample("x", dist.Normal(loc, 1.0))
        if deep:
            pyro.sample("y", dist.Normal(x, 1.0))

    elbo = TraceKL_ELBO()
    assert elbo.loss(model, guide, False) == pytest.approx(0.5)
    assert elbo.loss(model, guide, True) == pytest.approx(0.5, abs=1e-6)
    assert set(elbo.report.kls) == {"x", "y"}


def test_distributions_may_change_under_the_same_names():
    distributions = [dist.Normal(0.0, 1.0), dist.Laplace(0.0, 1.0), dist.Normal(0.0, 1.0)]
    elbo = TraceKL_ELBO()
    losses = [
        elbo.loss(lambda distribution=distribution: pyro.sample("x", distribution), normal_guide)
        for distribution in distributions
    ]
    assert losses[0] == losses[2] != losses[1]


def test_the_loss_is_that_of_trace_elbo_on_the_same_draws_if_all_is_sampled():
    for vectorize in (False, True):
        kwargs = dict(num_particles=5, vectorize_particles=vectorize, max_plate_nesting=0)
        pyro.set_rng_seed(2)
        ours = TraceKL_ELBO(mean_field="never", **kwargs).loss(normal_model, normal_guide)
        pyro.set_rng_seed(2)
        theirs = Trace_ELBO(**kwargs).loss(normal_model, normal_guide)
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.filterwarnings("ignore:Found non-auxiliary vars in guide:UserWarning")
def test_a_deterministic_site_of_the_guide_alone_counts_for_nothing():
    def guide():
        normal_guide()
        pyro.deterministic("twice", 2 * pyro.param("loc"))

    def loss(guide):
        pyro.set_rng_seed(0)
        return TraceKL_ELBO().loss(normal_model, guide)

    assert loss(guide) == loss(normal_guide)
