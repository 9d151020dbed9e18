"""Draws without reparametrisation: each is judged by the costs that it can change alone.

The expectation of a gradient over the draws of a few binary sites is the sum over all their
values, each with its probability, so that no test here is a matter of luck.
"""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO, TraceGraph_ELBO
from pyro.poutine.messenger import Messenger

from pyro_kl import JitTraceKL_ELBO, TraceEnumKL_ELBO, TraceKL_ELBO
from pyro_kl.elbo.guides.validity import Watch

from .models import jit

pytestmark = pytest.mark.usefixtures("double")

DATA = [3.0, 4.0, 5.0]
AUXILIARY = {"is_auxiliary": True}


class Forced(Messenger):
    """Gives the sites of a guide these values, computed from their distributions as draws are."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg):
        if msg["name"] in self.values:
            msg["value"] = msg["fn"].sample() * 0 + self.values[msg["name"]]
            msg["done"] = True


def probability(name, size=()):
    return pyro.param(name, torch.full(size, 0.4))


class Independent:
    """Three sites in a loop, each with its own datum."""

    names = ("z0", "z1", "z2")

    def model(self):
        for name, x in zip(self.names, DATA, strict=True):
            z = pyro.sample(name, dist.Bernoulli(0.3))
            pyro.sample(f"x_{name}", dist.Normal(2 * z, 1.0), obs=torch.tensor(x))

    def guide(self):
        for name in self.names:
            pyro.sample(name, dist.Bernoulli(probability(f"q_{name}")))


class Chain(Independent):
    """Each site depends on the one before, in model and guide."""

    def model(self):
        z = torch.zeros(())
        for name, x in zip(self.names, DATA, strict=True):
            z = pyro.sample(name, dist.Bernoulli(0.3 + 0.4 * z))
            pyro.sample(f"x_{name}", dist.Normal(2 * z, 1.0), obs=torch.tensor(x))

    def guide(self):
        z = torch.zeros(())
        for name in self.names:
            q = probability(f"q_{name}", (2,))
            z = pyro.sample(name, dist.Bernoulli(torch.where(z == 1, q[1], q[0])))


class Backwards(Chain):
    """The guide draws the sites of a chain in the other order."""

    def guide(self):
        z = torch.zeros(())
        for name in reversed(self.names):
            q = probability(f"q_{name}", (2,))
            z = pyro.sample(name, dist.Bernoulli(torch.where(z == 1, q[1], q[0])))


class Branch(Independent):
    """Which data there are, and the last prior, depend on the first draw through Python."""

    def model(self):
        first = pyro.sample("z0", dist.Bernoulli(0.3)).item() > 0
        second = pyro.sample("z1", dist.Bernoulli(0.6))
        pyro.sample("z2", dist.Bernoulli(0.3 if first else 0.8))
        if first:
            pyro.sample("x", dist.Normal(second, 1.0), obs=torch.tensor(2.0))
        else:
            pyro.sample("x", dist.Normal(-1.0, 1.0), obs=torch.tensor(2.0))


class Kept(Independent):
    """The guide keeps a draw, which the model uses before its own statement of the site."""

    def model(self):
        pyro.sample("x", dist.Normal(3 * self.kept, 1.0), obs=torch.tensor(2.0))
        super().model()

    def guide(self):
        super().guide()
        self.kept = pyro.sample("a", dist.Bernoulli(probability("q_a")), infer=AUXILIARY)


class Shared(Independent):
    """Two groups of sites and one datum for each; one site is the guide's alone."""

    def model(self):
        z = [pyro.sample(name, dist.Bernoulli(0.3)) for name in self.names]
        pyro.sample("x", dist.Normal(z[0] - z[2], 1.0), obs=torch.tensor(2.0))
        pyro.sample("y", dist.Poisson(2 + z[1]), obs=torch.tensor(6.0))

    def guide(self):
        a = pyro.sample("a", dist.Bernoulli(probability("q_a")), infer=AUXILIARY)
        for name in self.names[:2]:
            pyro.sample(name, dist.Bernoulli(probability(f"q_{name}")))
        pyro.sample("z2", dist.Bernoulli(0.2 + 0.6 * probability("q_z2") * a))


CASES = [Independent, Chain, Backwards, Branch, Kept, Shared]


def moments(case, elbo):
    """Mean and summed variance of the gradient over all draws of the guide.

    Returns:
        The mean, the variance, and the gradient of the exact ELBO.
    """
    one = case()
    pyro.clear_param_store()
    one.guide()
    params = [value for _, value in pyro.get_param_store().named_parameters()]
    names = [*one.names, "a"] if case in (Kept, Shared) else one.names
    mean, square, exact = 0.0, 0.0, 0.0
    for values in itertools.product((0.0, 1.0), repeat=len(names)):
        forced = dict(zip(names, values, strict=True))

        def guide(forced=forced):
            with Forced(forced):
                return one.guide()

        with pyro.poutine.trace() as of_guide:
            guide()
        with pyro.poutine.trace() as of_model, pyro.poutine.replay(trace=of_guide.trace):
            one.model()
        log_q = of_guide.trace.log_prob_sum()
        nats = log_q.exp() * (log_q - of_model.trace.log_prob_sum())
        exact = exact + torch.cat([x.reshape(-1) for x in torch.autograd.grad(nats, params)])
        elbo.loss_and_grads(one.model, guide)
        gradient = torch.cat([x.grad.reshape(-1) for x in params])
        for x in params:
            x.grad = None
        weight = log_q.exp().detach()
        mean, square = mean + weight * gradient, square + weight * gradient.square()
    return mean, (square - mean.square()).sum(), exact


BOTH = pytest.mark.parametrize("make", [TraceKL_ELBO, TraceEnumKL_ELBO])


def elbo_of(make, **kwargs):
    if make is TraceEnumKL_ELBO:
        kwargs["strict_enumeration_warning"] = False
    return make(max_plate_nesting=0, **kwargs)


@pytest.mark.filterwarnings("ignore:The KL of these sites is sampled")  # those of Backwards
@BOTH
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_unbiased(case, make):
    mean, _, exact = moments(case, elbo_of(make))
    assert torch.allclose(mean, exact, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", [Chain, Branch])
def test_the_gradient_is_unbiased_without_watching(case):
    mean, _, exact = moments(case, TraceKL_ELBO(mean_field="never"))
    assert torch.allclose(mean, exact, rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore:The KL of these sites is sampled")
@BOTH
@pytest.mark.parametrize("case", [Independent, Chain, Backwards, Shared])
def test_the_variance_is_below_that_of_trace_graph_here(case, make):
    _, ours, _ = moments(case, elbo_of(make))
    _, theirs, _ = moments(case, TraceGraph_ELBO())
    assert ours < theirs


@pytest.mark.parametrize("Elbo", [TraceKL_ELBO, TraceEnumKL_ELBO])
def test_a_factor_may_be_the_density_of_any_draw(Elbo):
    """The guide draws z by hand, and tells the density of the draw after the site."""
    values = iter([0.0, 1.0] * 3)

    def model():
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(2 * z, 1.0), obs=torch.tensor(3.0))

    def guide():
        z = torch.tensor(next(values))
        pyro.sample("z", dist.Delta(z))
        log_q = dist.Bernoulli(probability("q")).log_prob(z)
        pyro.factor("log_q", log_q, has_rsample=False)

    def free_energy(q):
        of_one = q.log() - math.log(0.3) + 0.5
        of_zero = (1 - q).log() - math.log(0.7) + 4.5
        return q * of_one + (1 - q) * of_zero

    elbo = Elbo(max_plate_nesting=0, strict_enumeration_warning=False)
    expected = 0.0
    for weight in (0.6, 0.4, 0.6, 0.4):  # first in a watched run, then by the order
        pyro.clear_param_store()
        elbo.loss_and_grads(model, guide)
        expected += weight * pyro.param("q").grad / 2
    q = torch.tensor(0.4, requires_grad=True)
    assert torch.allclose(expected, torch.autograd.grad(free_energy(q), q)[0], rtol=1e-5)


def test_a_factor_as_a_loss_has_the_gradient_of_trace_enum_elbo():
    """As the classification loss of Pyro's example of scANVI, which is no density of a draw."""

    def model():
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(3.0))

    def guide():
        log_p = dist.Bernoulli(probability("q")).log_prob(torch.tensor(1.0))
        pyro.factor("classification_loss", -0.1 * log_p, has_rsample=False)

    found = []
    for Elbo in (TraceEnum_ELBO, TraceEnumKL_ELBO):
        pyro.clear_param_store()
        elbo = Elbo(max_plate_nesting=0, strict_enumeration_warning=False)
        elbo.loss_and_grads(model, guide)
        found.append(pyro.param("q").grad)
    assert torch.allclose(*found, rtol=1e-6)


@pytest.mark.parametrize(("case", "watched"), [(Independent, 6), (Chain, 1)])
def test_runs_are_watched_only_where_the_order_says_less(monkeypatch, case, watched):
    runs = []
    run = Watch.guide
    monkeypatch.setattr(Watch, "guide", lambda self: runs.append(1) or run(self))
    one, elbo = case(), TraceKL_ELBO()
    for _ in range(6):
        elbo.loss_and_grads(one.model, one.guide)
    elbo.loss(one.model, one.guide)  # without a gradient there is nothing to judge
    assert len(runs) == watched


def test_a_run_is_watched_where_the_first_had_no_gradient():
    one, elbo = Independent(), TraceKL_ELBO()
    elbo.loss(one.model, one.guide)
    elbo.loss_and_grads(one.model, one.guide)
    _, ours, _ = moments(Independent, elbo)
    _, theirs, _ = moments(Independent, TraceGraph_ELBO())
    assert ours < theirs


@jit
@pytest.mark.parametrize("case", [Independent, Shared])
def test_a_traced_step_has_the_same_gradient(case):
    found = []
    for elbo in (TraceKL_ELBO(), JitTraceKL_ELBO()):
        one = case()
        pyro.clear_param_store()
        elbo.loss(one.model, one.guide)
        elbo.loss_and_grads(one.model, one.guide)
        params = [value for _, value in pyro.get_param_store().named_parameters()]
        for x in params:
            x.grad = None
        pyro.set_rng_seed(3)
        elbo.loss_and_grads(one.model, one.guide)
        found.append(torch.cat([x.grad.reshape(-1) for x in params]))
    assert torch.allclose(*found, rtol=1e-12)
