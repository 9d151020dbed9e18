"""TraceKL_ELBO(likelihood="exact"): the expectation where a predictor is linear; refusals."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions.testing import fakes
from pyro.infer import autoguide

import pyro_kl
from pyro_kl.likelihoods import BERNOULLI_LOGIT

X = torch.linspace(-1.5, 1.5, 24).reshape(8, 3).sin()
OFFSET = torch.linspace(-0.3, 0.4, 8)
OBSERVED = {
    "bernoulli": lambda eta: (dist.Bernoulli(logits=eta), torch.tensor([0.0, 1.0] * 4)),
    "binomial": lambda eta: (dist.Binomial(5, logits=eta), torch.tensor([0.0, 3.0] * 4)),
    "negative binomial": lambda eta: (
        dist.NegativeBinomial(torch.tensor(2.5), logits=eta),
        torch.tensor([0.0, 7.0] * 4),
    ),
    "poisson": lambda eta: (dist.Poisson(eta.exp()), torch.tensor([0.0, 2.0] * 4)),
    "normal": lambda eta: (dist.Normal(eta, 0.7), torch.linspace(-1, 1, 8)),
}
CLOSED = ("poisson", "normal")
GUIDES = (
    autoguide.AutoMultivariateNormal,
    autoguide.AutoNormal,
    autoguide.AutoDiagonalNormal,
    autoguide.AutoLowRankMultivariateNormal,
)


def linear_model(family="bernoulli", predictor=lambda bias, w: bias + X @ w + OFFSET):
    def model():
        bias = pyro.sample("bias", dist.Normal(0.0, 2.0))
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        p, y = OBSERVED[family](predictor(bias, w))
        with pyro.plate("data", 8):
            pyro.sample("y", p, obs=y)

    return model


def made(guide_class, model):
    pyro.set_rng_seed(0)
    guide = guide_class(model, init_scale=0.6)
    guide()
    return guide


@pytest.mark.parametrize(
    ("family", "guide_class"),
    [(family, autoguide.AutoMultivariateNormal) for family in OBSERVED]
    + [("bernoulli", each) for each in GUIDES[1:]],
)
def test_it_is_the_mean_over_draws_and_has_no_noise(family, guide_class):
    model = linear_model(family)
    guide = made(guide_class, model)
    elbo = pyro_kl.TraceKL_ELBO(likelihood="exact")
    first, second = elbo.loss(model, guide), elbo.loss(model, guide)
    assert first == pytest.approx(second, rel=1e-5)
    row = elbo.report["y"]
    assert row.method == ("closed form" if family in CLOSED else "quadrature")
    assert "in which the predictor is affine" in row.reason
    sampled = pyro_kl.TraceKL_ELBO().evaluate(model, guide, num_particles=200)
    assert abs(first - sampled.loss) < 5 * sampled["y"].standard_error


def test_value_and_gradient_are_those_of_the_formula():
    model = linear_model()
    guide = made(autoguide.AutoMultivariateNormal, model)
    pyro_kl.TraceKL_ELBO(likelihood="exact").loss_and_grads(model, guide)
    gradients = [x.grad.clone() for x in guide.parameters()]
    joint = guide.get_posterior()
    Z = torch.cat([torch.ones(8, 1), X], 1)
    loc = Z @ joint.loc + OFFSET
    scale = (Z @ joint.scale_tril).norm(dim=1)
    y = OBSERVED["bernoulli"](loc)[1]
    prior = dist.MultivariateNormal(torch.zeros(4), torch.diag(torch.tensor([4.0, 1, 1, 1])))
    expected = pyro_kl.expected_log_likelihood(BERNOULLI_LOGIT, y, loc, scale).value.sum()
    loss = pyro_kl.kl(joint, prior).value - expected
    wanted = torch.autograd.grad(loss, list(guide.parameters()))
    for found, gradient in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(found, gradient, rtol=2e-4, atol=2e-5)


def test_the_default_samples_as_before():
    model = linear_model()
    guide = made(autoguide.AutoNormal, model)
    pyro.set_rng_seed(1)
    loss = pyro_kl.TraceKL_ELBO().loss(model, guide)
    pyro.set_rng_seed(1)
    assert loss == pyro_kl.TraceKL_ELBO(likelihood="sampled").loss(model, guide)


def test_scales_masks_and_events_are_kept():
    mask = torch.tensor([True, False] * 4)

    def model(event=False):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        p, y = OBSERVED["bernoulli"](X @ w)
        with poutine.scale(scale=3.0):
            if event:
                pyro.sample("y", p.to_event(1), obs=y)
            else:
                with pyro.plate("data", 8), poutine.mask(mask=mask):
                    pyro.sample("y", p, obs=y)

    guide = made(autoguide.AutoDiagonalNormal, model)
    elbo = pyro_kl.TraceKL_ELBO(likelihood="exact")
    scale = (X.square() @ guide.scale.square()).sqrt()
    each = pyro_kl.expected_log_likelihood(
        "bernoulli", torch.tensor([0.0, 1.0] * 4), X @ guide.loc, scale
    ).value
    elbo.loss(model, guide)
    assert elbo.report["y"].nats == pytest.approx(3 * each[mask].sum().item(), rel=1e-5)
    elbo.loss(model, guide, event=True)
    assert elbo.report["y"].nats == pytest.approx(3 * each.sum().item(), rel=1e-5)


def test_a_hierarchical_prior_may_have_any_latents_above_the_predictor():
    def model():
        tau = pyro.sample("tau", dist.LogNormal(0.0, 1.0))
        w = pyro.sample("w", dist.Normal(torch.zeros(3), tau).to_event(1))
        p, y = OBSERVED["bernoulli"](X @ w)
        with pyro.plate("data", 8):
            pyro.sample("y", p, obs=y)

    for guide_class in GUIDES:
        guide = made(guide_class, model)
        elbo = pyro_kl.TraceKL_ELBO(likelihood="exact")
        elbo.loss(model, guide)
        assert elbo.report["y"].method == "quadrature"


def test_an_unknown_noise_is_sampled_apart_from_the_predictor():
    def model():
        noise = pyro.sample("noise", dist.LogNormal(0.0, 1.0))
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", 8):
            pyro.sample("y", dist.Normal(X @ w, noise), obs=torch.linspace(-1, 1, 8))

    guide = made(autoguide.AutoNormal, model)
    elbo = pyro_kl.TraceKL_ELBO(likelihood="exact")
    pyro.set_rng_seed(1)  # the noise of both has the same draws
    row = elbo.evaluate(model, guide, num_particles=200)["y"]
    assert row.method == "closed form"
    pyro.set_rng_seed(1)
    sampled = pyro_kl.TraceKL_ELBO().evaluate(model, guide, num_particles=200)["y"]
    assert 0 < row.standard_error < sampled.standard_error
    assert abs(row.nats - sampled.nats) < 5 * sampled.standard_error
    with pytest.warns(UserWarning, match="y: its noise depends on the guide's draws"):
        elbo.loss(model, made(autoguide.AutoMultivariateNormal, model))


def hand_written(dependent):
    def guide():
        loc = pyro.param("loc", torch.tensor(0.3))
        bias = pyro.sample("bias", dist.Normal(loc, 0.5))
        at = bias * pyro.param("slope", torch.ones(3)) if dependent else loc.expand(3)
        pyro.sample("w", dist.Normal(at, 0.2).to_event(1))

    return guide


def test_a_guide_by_hand():
    pyro.clear_param_store()
    model, guide = linear_model(), hand_written(dependent=False)
    elbo = pyro_kl.TraceKL_ELBO(likelihood="exact")
    assert elbo.loss(model, guide) == pytest.approx(elbo.loss(model, guide), rel=1e-5)
    assert elbo.report["y"].method == "quadrature"
    sampled = pyro_kl.TraceKL_ELBO().evaluate(model, guide, num_particles=200)
    assert abs(elbo.report["y"].nats - sampled["y"].nats) < 5 * sampled["y"].standard_error


def not_reparametrised():
    pyro.sample("bias", fakes.NonreparameterizedNormal(torch.zeros(()), 1.0))
    loc = pyro.param("loc_w", torch.zeros(3))
    pyro.sample("w", dist.Normal(loc, 1.0).to_event(1))


REFUSED = {
    "a product of draws": (lambda b, w: b * (X @ w), None, "Mul is between"),
    "a square": (lambda b, w: b + X @ w.square(), None, "Pow is between"),
    "a hinge": (lambda b, w: torch.relu(b + X @ w), None, "Relu is between"),
    "a choice": (lambda b, w: torch.where(X @ w > 0, X @ w, b), None, "Where is between"),
    "no draw": (lambda b, w: OFFSET, None, "no Normal draw of the guide"),
    "a guide with an order": (None, hand_written(True), "guide's w depends on another draw"),
    "score functions": (None, not_reparametrised, "bias is not reparametrised"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_otherwise_it_is_sampled_and_says_why(case):
    predictor, guide, why = REFUSED[case]
    pyro.clear_param_store()
    model = linear_model(predictor=predictor) if predictor else linear_model()
    guide = guide or made(autoguide.AutoNormal, model)
    elbo = pyro_kl.TraceKL_ELBO(likelihood="exact", mean_field="never")
    pyro.set_rng_seed(1)
    with pytest.warns(UserWarning, match=rf"y: .*{why}"):
        loss = elbo.loss(model, guide)
    assert elbo.report["y"].method == "observed"
    assert why in elbo.report["y"].reason
    elbo.loss(model, guide)  # without a second warning
    pyro.set_rng_seed(1)
    assert loss == pyro_kl.TraceKL_ELBO(mean_field="never").loss(model, guide)


def other_likelihoods():
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", 8):
        pyro.sample("y", dist.Bernoulli(torch.special.ndtr(X @ w)), obs=torch.ones(8))
        pyro.sample("t", dist.StudentT(4.0, X @ w, 1.0), obs=torch.ones(8))
        pyro.sample("n", dist.Normal(X @ w, (X @ w).exp()), obs=torch.ones(8))
        pyro.sample("z", dist.Normal(X @ w, 1.0), obs=torch.ones(8))


def test_each_site_is_decided_on_its_own():
    guide = made(autoguide.AutoDiagonalNormal, other_likelihoods)
    elbo = pyro_kl.TraceKL_ELBO(likelihood="exact")
    with pytest.warns(UserWarning, match="The log likelihood of these sites is sampled") as seen:
        elbo.loss(other_likelihoods, guide)
    (message,) = (str(each.message) for each in seen)
    for line in (
        "y: Bernoulli has no linear predictor",
        "t: StudentT has no linear predictor",
        "n: its noise depends on the guide's draws",
    ):
        assert line in message
    methods = {name: elbo.report[name].method for name in "ytnz"}
    assert methods == {"y": "observed", "t": "observed", "n": "observed", "z": "closed form"}


class Sum(torch.autograd.Function):
    """No sum: its name alone is that of a linear operation."""

    @staticmethod
    def forward(ctx, x):
        return x.abs()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@pytest.mark.parametrize(
    ("size", "predictor", "why"),
    [
        (3, lambda w: Sum.apply(X @ w), "SumBackward is between"),
        (5000, lambda w: w[:8], "5000 coordinates, and more than 4096 are too many"),
    ],
)
def test_operations_of_others_and_long_draws_are_refused(size, predictor, why):
    def model():
        w = pyro.sample("w", dist.Normal(torch.zeros(size), 1.0).to_event(1))
        with pyro.plate("data", 8):
            pyro.sample("y", dist.Bernoulli(logits=predictor(w)), obs=torch.ones(8))

    guide = made(autoguide.AutoNormal, model)
    elbo = pyro_kl.TraceKL_ELBO(likelihood="exact")
    with pytest.warns(UserWarning, match=why):
        elbo.loss(model, guide)
    assert elbo.report["y"].method == "observed"


def test_particles_in_one_tensor_are_refused():
    def model():
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 8):
            pyro.sample("y", dist.Bernoulli(logits=OFFSET * w), obs=torch.ones(8))

    guide = made(autoguide.AutoNormal, model)
    elbo = pyro_kl.TraceKL_ELBO(
        2, max_plate_nesting=1, vectorize_particles=True, likelihood="exact"
    )
    with pytest.warns(UserWarning, match="vectorize_particles=True"):
        elbo.loss(model, guide)
    one_by_one = pyro_kl.TraceKL_ELBO(2, likelihood="exact")
    one_by_one.loss(model, guide)
    assert one_by_one.report["y"].method == "quadrature"
    assert one_by_one.report["y"].standard_error == pytest.approx(0.0, abs=1e-5)


def test_options():
    with pytest.raises(ValueError, match="likelihood must be one of sampled, exact, got 'mean'"):
        pyro_kl.TraceKL_ELBO(likelihood="mean")
    with pytest.raises(ValueError, match="JitTraceKL_ELBO has no likelihood"):
        pyro_kl.JitTraceKL_ELBO(likelihood="exact")
    assert "graph" in pyro_kl.TraceKL_ELBO(likelihood="exact").not_recordable


def test_a_fit_arrives_at_the_optimum_without_noise():
    model = linear_model()
    guide = made(autoguide.AutoMultivariateNormal, model)
    elbo = pyro_kl.TraceKL_ELBO(likelihood="exact")
    optimiser = torch.optim.LBFGS(guide.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        return elbo.loss_and_grads(model, guide)

    optimiser.step(closure)
    slopes = torch.cat([x.grad.reshape(-1) for x in guide.parameters()])
    assert slopes.abs().max() < 2e-3
