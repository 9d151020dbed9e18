"""Gradients of TraceKL_ELBO against enumeration, and as Pyro's own suite checks them."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.distributions.testing import fakes
from pyro.infer import SVI
from pyro.optim import Adam
from torch.distributions import kl_divergence

from pyro_kl import TraceKL_ELBO

from .models import normal_model

# --- gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize(
    ("distribution", "has_rsample"),
    [
        (dist.Normal, None),
        (dist.Normal, False),
        (dist.Normal, True),
        (fakes.NonreparameterizedNormal, None),
    ],
)
@pytest.mark.parametrize("mean_field", ["check", "never"])
def test_gradient_under_subsampling(distribution, has_rsample, subsample, scale, mean_field):
    data = torch.tensor([-0.5, 2.0])
    size = 1 if subsample else 2

    def model(subsample):
        with pyro.plate("data", 2, size, subsample) as index:
            z = pyro.sample("z", distribution(0, 1))
            pyro.sample("x", distribution(z, 1), obs=data[index])

    def guide(subsample):
        sd = pyro.param("sd", lambda: torch.tensor([1.0]))
        with pyro.plate("data", 2, size, subsample):
            loc = pyro.param("loc", lambda: torch.zeros(2), event_dim=0)
            q = distribution(loc, sd)
            if has_rsample is not None:
                q.has_rsample_(has_rsample)
            pyro.sample("z", q)

    particles = 5_000 if distribution is dist.Normal and has_rsample is not False else 40_000
    elbo = TraceKL_ELBO(
        num_particles=particles, vectorize_particles=True, max_plate_nesting=1,
        mean_field=mean_field,
    )  # fmt: skip
    inference = SVI(
        poutine.scale(model, scale=scale), poutine.scale(guide, scale=scale), Adam({}), loss=elbo
    )
    for index in [[0], [1]] if subsample else [[0, 1]]:
        inference.loss_and_grads(inference.model, inference.guide, torch.LongTensor(index))
    share = 2 if subsample else 1
    params = {name: p.grad / share for name, p in pyro.get_param_store().named_parameters()}
    torch.testing.assert_close(
        params["loc"], scale * torch.tensor([0.5, -2.0]), atol=0.1 * scale, rtol=0
    )
    torch.testing.assert_close(
        params["sd"], scale * torch.tensor([2.0]), atol=0.16 * scale, rtol=0
    )


def test_exact_kls_leave_a_discrete_site_with_less_noise():
    """The gradient of a Bernoulli's KL is exact; only the likelihood is scored."""

    def model():
        pyro.sample("x", dist.Bernoulli(0.3))

    def guide():
        q = pyro.param("q", torch.tensor(0.6), constraint=constraints.unit_interval)
        pyro.sample("x", dist.Bernoulli(q))

    elbo = TraceKL_ELBO()
    loss = elbo.loss_and_grads(model, guide)
    q = torch.tensor(0.6, requires_grad=True)
    kl = kl_divergence(dist.Bernoulli(q), dist.Bernoulli(0.3))
    slope = torch.autograd.grad(kl, q)[0] * 0.6 * 0.4  # through the sigmoid
    assert loss == pytest.approx(kl.item(), abs=1e-6)
    parameter = pyro.param("q").unconstrained()
    assert parameter.grad.item() == pytest.approx(slope.item(), abs=1e-5)


def test_score_function_gradient_with_likelihood_is_unbiased():
    data = torch.tensor([0.4, 1.2])
    locs = torch.tensor([0.0, 1.0])

    def model():
        with pyro.plate("data", 2):
            x = pyro.sample("x", dist.Bernoulli(0.3))
            pyro.sample("y", dist.Normal(locs[x.long()], 1.0), obs=data)

    def guide():
        q = pyro.param("q", torch.tensor([0.6, 0.5]))
        with pyro.plate("data", 2):
            pyro.sample("x", dist.Bernoulli(q))

    elbo = TraceKL_ELBO(num_particles=20_000, vectorize_particles=True, max_plate_nesting=1)
    elbo.loss_and_grads(model, guide)
    q = torch.tensor([0.6, 0.5], requires_grad=True)
    log_likelihood = dist.Normal(locs.unsqueeze(-1), 1.0).log_prob(data)
    exact = (
        kl_divergence(dist.Bernoulli(q), dist.Bernoulli(0.3)).sum()
        - ((1 - q) * log_likelihood[0] + q * log_likelihood[1]).sum()
    )
    expected = torch.autograd.grad(exact, q)[0]
    torch.testing.assert_close(pyro.param("q").grad, expected, atol=0.08, rtol=0)


@pytest.mark.parametrize("vectorize", [False, True])
def test_retain_graph(vectorize):
    elbo = TraceKL_ELBO(num_particles=2, vectorize_particles=vectorize, retain_graph=True)
    x = torch.tensor(0.2, requires_grad=True).exp()

    def guide():
        pyro.param("unused", torch.tensor(0.0))
        pyro.sample("x", dist.Normal(x, 1.0))

    for _ in range(2):  # the graph behind x is used again
        elbo.loss_and_grads(normal_model, guide)


def test_a_guide_without_parameters_needs_no_gradient():
    elbo = TraceKL_ELBO()
    assert elbo.loss_and_grads(normal_model, lambda: pyro.sample("x", dist.Normal(0.0, 1.0))) > 0


class Scored(dist.Beta):
    has_rsample = False


def tosses():
    with pyro.plate("coins", 2):
        f = pyro.sample("f", dist.Beta(torch.tensor(10.0), torch.tensor(10.0)))
        with pyro.plate("tosses", 20, dim=-2):
            pyro.sample("o", dist.Bernoulli(f), obs=torch.ones(20, 2))


class Constant(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.values = torch.nn.Parameter(torch.full((2,), -11.0))

    def forward(self, nothing):
        return self.values + 0 * nothing


@pytest.mark.parametrize("options", ["decaying", "network", "value"])
def test_a_baseline_keeps_the_gradient_and_takes_its_variance(options):
    network = Constant()
    baseline = {
        "decaying": {"use_decaying_avg_baseline": True, "baseline_beta": 0.9},
        "network": {"nn_baseline": network, "nn_baseline_input": torch.zeros(2)},
        "value": {"baseline_value": torch.full((2,), -11.0)},
    }[options]
    gradients = {}
    for name, infer in (("plain", {}), ("baseline", {"baseline": baseline})):

        def guide(infer=infer):
            a = pyro.param("a", torch.tensor([15.0, 20.0]))
            with pyro.plate("coins", 2):
                pyro.sample("f", Scored(a, 15.0), infer=infer)

        elbo, rows = TraceKL_ELBO(), []
        for seed in range(110):
            pyro.set_rng_seed(seed)
            elbo.loss_and_grads(tosses, guide)
            rows.append(pyro.param("a").grad.clone())
            pyro.param("a").grad = None
        gradients[name] = torch.stack(rows[30:])
    gap = gradients["baseline"] - gradients["plain"]
    assert (gap.mean(0).abs() < 4.5 * gap.std(0) / len(gap) ** 0.5).all()
    assert (gradients["baseline"].std(0) < 0.6 * gradients["plain"].std(0)).all()
    if options == "network":  # its loss is the square of what it leaves, summed over the draws
        assert network.values.grad.abs().min() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_average": True}, "baseline of f takes baseline_beta"),
        ({"baseline_value": torch.zeros(3)}, r"baseline of f has shape \(3,\), .* \(2,\)"),
    ],
)
def test_a_baseline_that_makes_no_sense_is_refused(options, message):
    def guide():
        with pyro.plate("coins", 2):
            pyro.sample("f", Scored(pyro.param("a", torch.tensor(3.0)), 15.0), infer=infer)

    infer = {"baseline": options}
    with pytest.raises(ValueError, match=message):
        TraceKL_ELBO().loss_and_grads(tosses, guide)
