"""The traces of guide and model are those of Pyro, and are checked as Pyro checks them."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

from pyro_kl import TraceKL_ELBO
from pyro_kl.elbo.recorder import Recorder, ReplayRecorder

from .models import normal_guide, normal_model


def plated_model(rows):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 6, subsample_size=4):
        x = pyro.sample("x", dist.Normal(z, 1.0), infer={"is_auxiliary": True})
        pyro.sample("y", dist.Normal(x, 1.0), obs=torch.zeros(rows))
    pyro.deterministic("double", 2 * z)


def plated_guide(rows):
    loc = pyro.param("loc", lambda: torch.zeros(()))
    pyro.param("loc")  # read twice, recorded once
    pyro.sample("z", dist.Normal(loc, 1.0))
    hidden = dist.Normal(0.0, 1.0)
    pyro.sample("hidden", hidden, infer={"_do_not_trace": True, "is_auxiliary": True})
    with pyro.plate("rows", 6, subsample_size=4):
        pyro.sample("x", dist.Normal(0.0, 1.0).expand([rows]))


def test_records_what_pyro_records():
    pyro.clear_param_store()
    ours, pyros = [], []
    for traces, trace_of, replayed in (
        (ours, lambda f: Recorder().run(f, (4,), {}), lambda t: ReplayRecorder(t)),
        (pyros, lambda f: poutine.trace(f).get_trace(4), None),
    ):
        pyro.set_rng_seed(0)
        guide_trace = trace_of(plated_guide)
        if replayed:
            model_trace = replayed(guide_trace).run(plated_model, (4,), {})
        else:
            model_trace = trace_of(poutine.replay(plated_model, trace=guide_trace))
        traces += guide_trace, model_trace
    for mine, theirs in zip(ours, pyros, strict=True):
        assert list(mine.nodes) == list(theirs.nodes)
        for name, node in theirs.nodes.items():
            assert node.keys() == mine.nodes[name].keys()
            if isinstance(node["value"] if "value" in node else None, torch.Tensor):
                assert torch.equal(node["value"], mine.nodes[name]["value"])
            assert node.get("infer") == mine.nodes[name].get("infer")
    for trace in ours:
        trace.remove_node("z")
        assert "z" not in trace.copy()


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (lambda: [pyro.sample("z", dist.Normal(0.0, 1.0)) for _ in range(2)], "Multiple sample"),
        (
            lambda: [
                pyro.param("z", lambda: torch.ones(())),
                pyro.sample("z", dist.Normal(0.0, 1.0)),
            ],
            "already in the trace as a param",
        ),
        (lambda: pyro.sample("bad", dist.Normal(0.0, -1.0)), "Trace Shapes"),
    ],
)
def test_errors_are_pyros(statements, message):
    pyro.clear_param_store()
    errors = []
    for elbo in (Trace_ELBO(), TraceKL_ELBO()):
        with pytest.raises((ValueError, RuntimeError), match=message) as caught:
            elbo.loss(normal_model, statements)
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


def test_a_shape_that_changes_is_checked_again():
    size = 3

    def model():
        with pyro.plate("rows", 3):
            pyro.sample("z", dist.Normal(torch.zeros(size), 1.0))

    def guide():
        with pyro.plate("rows", 3):
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))

    for validate, is_refused in ((True, True), (False, False)):
        elbo, size = TraceKL_ELBO(), 3
        with pyro.validation_enabled(validate):
            elbo.loss(model, guide)
            size = 1
            elbo.loss(model, guide)  # is expanded by the plate
            size = (2, 3)
            if is_refused:
                with pytest.raises(ValueError, match="shapes disagree at site 'z'"):
                    elbo.loss(model, guide)
            else:
                elbo.loss(model, guide)


def test_what_pyro_warns_of_in_every_step_is_warned_of_in_every_step():
    def model():
        pyro.sample("missing", dist.Normal(0.0, 1.0))
        normal_model()

    elbo = TraceKL_ELBO()
    for _ in range(3):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            elbo.loss(model, normal_guide)
        assert sum("Found vars in model but not guide" in str(w.message) for w in caught) == 1


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -float("inf"), 0.0])
def test_a_density_that_is_not_finite_is_warned_of_as_by_pyro(factor):
    def model():
        normal_model()
        density = dist.Unit(torch.tensor(factor), validate_args=False)
        pyro.sample("term", density, obs=torch.empty(0))

    found = []
    for elbo in (Trace_ELBO(), TraceKL_ELBO()):
        pyro.clear_param_store()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            elbo.loss_and_grads(model, normal_guide)
        found.append(sorted({str(w.message) for w in caught if "log_prob_sum" in str(w.message)}))
    assert found[0] == found[1]
    assert bool(found[0]) == (factor != factor or factor == float("inf"))


def test_a_mask_that_changes_is_compared_again_inside_of_a_functional_gradient():
    is_seen = torch.tensor([True, True])

    def model():
        with pyro.plate("rows", 2), poutine.mask(mask=torch.tensor([True, True])):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    def loss(loc):
        def guide():
            with pyro.plate("rows", 2), poutine.mask(mask=is_seen):
                pyro.sample("z", dist.Normal(loc, 1.0))

        return elbo.differentiable_loss(model, guide)

    elbo = TraceKL_ELBO()
    assert torch.func.grad(loss)(torch.tensor(0.3)).item() == pytest.approx(0.6)
    is_seen = torch.tensor([True, False])
    with pytest.warns(UserWarning, match="mask of z differ"):
        torch.func.grad(loss)(torch.tensor(0.3))


def test_densities_are_computed_in_the_same_order_in_every_process():
    """Gradients are summed in that order, and a resumed fit is equal to the last bit."""
    order = []

    class Noted(dist.Normal):
        def log_prob(self, value):
            order.append(int(self.scale))
            return super().log_prob(value)

    def sites():
        for i in range(1, 9):
            pyro.sample(f"site {i}", Noted(0.0, float(i)))

    TraceKL_ELBO(mean_field="never").loss(sites, sites)
    assert order == [*range(1, 9)] * 2
