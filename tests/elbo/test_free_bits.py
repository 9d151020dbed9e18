"""Free bits, capacity and KL balancing against their objectives, written out."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.distributions import constraints, kl_divergence

from pyro_kl import JitTraceKL_ELBO, TraceKL_ELBO

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning"
)

MASK = torch.tensor([True, True, False, True])
START = torch.tensor([[0.0, 0.1], [0.4, 0.1], [2.0, 2.0], [1.7, 0.0]], dtype=torch.float64)
SCALE = 2.5 * 8 / 4  # of poutine.scale, and of 4 out of 8 data


@pytest.fixture(autouse=True)
def _double(double):
    """Finite differences need the digits."""


def settings():
    return poutine.scale(scale=2.5), poutine.mask(mask=MASK)


def model():
    loc = pyro.param("prior", lambda: torch.tensor([0.1, -0.2]))
    pyro.sample("w", dist.Gamma(2.0, 1.0))
    scaled, masked = settings()
    with pyro.plate("data", 8, subsample=torch.arange(4)), scaled, masked:
        pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


def guide():
    loc = pyro.param("loc", lambda: START.clone())
    sd = pyro.param("sd", lambda: torch.tensor([0.9, 0.5]), constraint=constraints.positive)
    shape = pyro.param("shape", lambda: torch.tensor(1.5), constraint=constraints.positive)
    pyro.sample("w", dist.Gamma(shape, 1.3))
    scaled, masked = settings()
    with pyro.plate("data", 8, subsample=torch.arange(4)), scaled, masked:
        pyro.sample("z", dist.Normal(loc, sd).to_event(1))


def kls():
    """KL of w, and of each coordinate of z at each datum."""
    q = dist.Normal(pyro.param("loc"), pyro.param("sd"))
    w = kl_divergence(dist.Gamma(pyro.param("shape"), 1.3), dist.Gamma(2.0, 1.0))
    return w, kl_divergence(q, dist.Normal(pyro.param("prior"), 1.0))


def free(kl, level):
    return kl.clamp(min=level)


def aim(kl, level):
    return (kl - level).abs()


def per_site(bend, level):
    w, z = kls()
    return bend(w, level) + bend(SCALE * z[MASK].sum(), level)


def per_element(bend, level):
    w, z = kls()
    return bend(w, level) + SCALE * bend(z[MASK].sum(-1), level).sum()


def per_batch(bend, level):
    w, z = kls()
    return bend(w, level) + SCALE * MASK.sum() * bend(z[MASK].mean(0), level).sum()


OBJECTIVES = {
    "free bits per site": ({"free_bits": 0.4}, lambda: per_site(free, 0.4)),
    "free bits per element": (
        {"free_bits": 0.4, "free_bits_per": "element"},
        lambda: per_element(free, 0.4),
    ),
    "free bits per batch": (
        {"free_bits": 0.4, "free_bits_per": "batch", "beta": 0.7},
        lambda: 0.7 * per_batch(free, 0.4),
    ),
    "free bits of one site": (
        {"free_bits": {"z": 0.4}, "free_bits_per": "element"},
        lambda: per_element(free, 0.4) - free(kls()[0], 0.4) + kls()[0],
    ),
    "capacity": ({"capacity": 3.0}, lambda: aim(kls()[0] + SCALE * kls()[1][MASK].sum(), 3.0)),
    "capacity per site": (
        {"capacity": 0.3, "capacity_per": "site", "beta": {"w": 1.0}},
        lambda: per_site(aim, 0.3),
    ),
    "capacity per element": (
        {"capacity": 0.3, "capacity_per": "element"},
        lambda: per_element(aim, 0.3),
    ),
    "capacity per batch": (
        {"capacity": {"z": 0.3, "w": lambda step: 0.3}, "capacity_per": "batch"},
        lambda: per_batch(aim, 0.3),
    ),
}
ENGINES = [
    (TraceKL_ELBO, {}),
    (TraceKL_ELBO, {"num_particles": 2}),
    (TraceKL_ELBO, {"num_particles": 3, "vectorize_particles": True, "max_plate_nesting": 1}),
    (JitTraceKL_ELBO, {"num_particles": 2}),
]


def gradients(loss):
    names = ("loc", "sd", "shape", "prior")
    leaves = [pyro.param(name).unconstrained() for name in names]
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(leaves, grads, strict=True)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradient_are_those_of_the_objective_written_out(name):
    arguments, objective = OBJECTIVES[name]
    for Elbo, engine in ENGINES:
        elbo = Elbo(**arguments, **engine)
        elbo.loss_and_grads(model, guide)  # makes the parameters, and traces
        loss = elbo.differentiable_loss(model, guide)
        expected = objective()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        for ours, theirs in zip(gradients(loss), gradients(expected), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
        report = elbo.report
        assert report.loss == pytest.approx(loss.item(), rel=1e-6)
        w, z = kls()
        assert report.elbo == pytest.approx(-(w + SCALE * z[MASK].sum()).item(), rel=1e-6)


@pytest.mark.parametrize("per", ["element", "batch"])
def test_finite_differences_of_the_loss_are_the_gradient(per):
    elbo = TraceKL_ELBO(free_bits=0.4, free_bits_per=per)
    elbo.loss_and_grads(model, guide)
    parameter = pyro.param("loc").unconstrained()
    (gradient,) = torch.autograd.grad(elbo.differentiable_loss(model, guide), parameter)
    for i in range(parameter.numel()):
        losses = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                parameter.view(-1)[i] += step
            losses.append(elbo.loss(model, guide))
        with torch.no_grad():
            parameter.view(-1)[i] += 1e-5
        slope = (losses[0] - losses[1]) / 2e-5
        assert gradient.view(-1)[i].item() == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize("per", ["site", "element", "batch"])
@pytest.mark.parametrize("mean_field", ["check", "never"])
def test_a_mask_of_the_law_counts_as_one_around_it(per, mean_field):
    def both(around, loc):
        mask = poutine.mask(mask=MASK) if around else poutine.scale(scale=1.0)
        with pyro.plate("data", 4), mask:
            distribution = dist.Normal(loc, 1.0).to_event(1)
            pyro.sample("z", distribution if around else distribution.mask(MASK))

    results = []
    for around in (True, False):
        elbo = TraceKL_ELBO(free_bits=0.4, free_bits_per=per, mean_field=mean_field)
        pyro.set_rng_seed(0)
        loss = elbo.loss(lambda: both(around, torch.zeros(2)), lambda: both(around, START))  # noqa: B023
        results.append((loss, elbo.report.loss, elbo.report["z"].masked))
    assert results[0] == pytest.approx(results[1], rel=1e-9)


def test_what_is_counted_is_told():
    elbo = TraceKL_ELBO(free_bits={"z": 0.4}, free_bits_per="element")
    elbo.loss(model, guide)
    assert elbo.report.objective == "free_bits[z] = 0.4 per element"
    _, z = kls()
    above = (z[MASK].sum(-1) > 0.4).double().mean().item()
    assert elbo.report["z"].weight == pytest.approx(above)
    for arguments in ({"free_bits_per": "datum"}, {"capacity_per": "all"}):
        with pytest.raises(ValueError, match="must be one of site, element, batch"):
            TraceKL_ELBO(**arguments)


def test_sampled_kls_are_bent_for_each_datum_after_averaging_over_particles():
    pyro.set_rng_seed(0)
    elbo = TraceKL_ELBO(
        num_particles=5, mean_field="never", free_bits={"z": 0.4}, free_bits_per="element"
    )
    loss = elbo.loss(model, guide)
    pyro.set_rng_seed(0)
    total, w = 0.0, 0.0
    for _ in range(5):
        q = poutine.trace(guide).get_trace()
        p = poutine.trace(poutine.replay(model, q)).get_trace()
        for trace in (p, q):
            trace.compute_log_prob()
        total = total + (q.nodes["z"]["log_prob"] - p.nodes["z"]["log_prob"]) / 5
        w = w + (q.nodes["w"]["log_prob"] - p.nodes["w"]["log_prob"]) / 5
    expected = w + torch.where(MASK, total.clamp(min=0.4 * SCALE), 0.0).sum()
    assert loss == pytest.approx(expected.item(), rel=1e-6)


def balanced(share, level):
    """KL balancing with a floor for each datum, written out with detached parameters."""
    names = ("prior", "loc", "sd", "shape")
    prior, loc, sd, shape = (pyro.param(name) for name in names)

    def bent(prior, loc, sd, shape):
        w = kl_divergence(dist.Gamma(shape, 1.3), dist.Gamma(2.0, 1.0))
        z = kl_divergence(dist.Normal(loc, sd), dist.Normal(prior, 1.0))
        return free(w, level) + SCALE * free(z[MASK].sum(-1), level).sum()

    of_prior = bent(prior, loc.detach(), sd.detach(), shape.detach())
    return share * of_prior + (1 - share) * bent(prior.detach(), loc, sd, shape)


@pytest.mark.parametrize("share", [0.0, 0.8, 1.0])
def test_kl_balancing_is_that_of_the_written_out_objective(share):
    arguments = {"kl_balance": share, "free_bits": 0.4, "free_bits_per": "element"}
    for Elbo, engine in ENGINES:
        elbo = Elbo(**arguments, **engine)
        elbo.loss_and_grads(model, guide)
        loss = elbo.differentiable_loss(model, guide)
        expected = balanced(share, 0.4)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6) == elbo.report.loss
        for ours, theirs in zip(gradients(loss), gradients(expected), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    assert f"kl_balance = {share:g}" in elbo.report.objective


def test_kl_balancing_of_coordinates_and_of_samples():
    """Counted per batch; and sampled, where the gradient has the same expectation."""
    shares = {"prior": 0.8, "loc": 0.2, "sd": 0.2}
    for arguments in (
        {"free_bits": 0.2, "free_bits_per": "batch"},
        {"mean_field": "never", "num_particles": 2},
    ):
        rows = []
        for extra in ({}, {"kl_balance": {"z": 0.8}}):
            pyro.set_rng_seed(0)
            elbo = TraceKL_ELBO(**arguments, **extra)
            elbo.loss_and_grads(model, guide)
            pyro.set_rng_seed(0)
            rows.append(gradients(elbo.differentiable_loss(model, guide)))
        for name, plain, ours in zip(("loc", "sd", "shape", "prior"), *rows, strict=True):
            torch.testing.assert_close(ours, shares.get(name, 1.0) * plain, rtol=1e-5, atol=1e-7)


def test_kl_balancing_that_makes_no_sense_is_refused():
    def scored():
        pyro.sample("k", dist.Bernoulli(pyro.param("probs", torch.tensor(0.3))))

    class Hidden(dist.Normal):
        def log_prob(self, value):
            return super().log_prob(value) - pyro.param("hidden", torch.tensor(0.1)) * value**4

    with pytest.raises(ValueError, match="prior of z, Hidden, has parameters that"):
        TraceKL_ELBO(kl_balance=0.8).loss_and_grads(
            lambda: pyro.sample("z", Hidden(0.0, 1.0)),
            lambda: pyro.sample("z", dist.Normal(0.0, 1.0)),
        )
    with pytest.raises(ValueError, match=r"number in \[0, 1\]"):
        TraceKL_ELBO(kl_balance=1.5)
    with pytest.raises(ValueError, match="k has those of a score function"):
        TraceKL_ELBO(kl_balance=0.8).loss_and_grads(scored, scored)
    with pytest.raises(ValueError, match="kl_balance are not all sampled"):
        TraceKL_ELBO(kl_balance={"u": 0.8}).loss_and_grads(model, guide)
