"""What guides do to the validity of exact KLs: shapes, masks, dependences, infinities, rows."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer import autoguide as ag
from torch.distributions import constraints

import pyro_kl
from pyro_kl import JitTraceKL_ELBO, TraceKL_ELBO
from pyro_kl.elbo.guides.validity import Watch

from ..conformance import random_models

quiet = pytest.mark.filterwarnings(
    "ignore:The KL of these sites is sampled:UserWarning",
    "ignore:Scale or mask of:UserWarning",
)


def parameters():
    return [p for _, p in pyro.get_param_store().named_parameters()]


def with_seed(elbo, model, guide, *args):
    pyro.set_rng_seed(5)
    return elbo.loss(model, guide, *args)


# --- joint guides of every shape ----------------------------------------------------------------

#: Batch shape (by plates) and event shape of each of a model's latents.
SHAPES = {
    "scalar": [((), ())],
    "one": [((), (1,))],
    "vector": [((), (3,))],
    "column": [((), (3, 1))],
    "row": [((), (1, 3))],
    "matrix": [((), (3, 2))],
    "cube": [((), (2, 1, 2))],
    "plate": [((3,), ())],
    "two plates": [((2, 3), ())],
    "plate of rows": [((3,), (2,))],
    "plate of matrices": [((2,), (2, 2))],
    "several": [((), (3, 2)), ((2,), ()), ((), ())],
    "several in plates": [((2,), (2, 1)), ((), (2,)), ((2, 1), (3,))],
}
GUIDES = {
    "AutoNormal": ag.AutoNormal,
    "AutoDiagonalNormal": ag.AutoDiagonalNormal,
    "AutoMultivariateNormal": ag.AutoMultivariateNormal,
    "AutoLowRankMultivariateNormal": lambda model: ag.AutoLowRankMultivariateNormal(model, rank=1),
    "AutoStructured": ag.AutoStructured,
}
PRIORS = {
    "line": lambda zeros: dist.Normal(zeros, 1.0),
    "half line": lambda zeros: dist.LogNormal(zeros, 1.0),
}


def model_of(shapes, prior):
    def model():
        for i, (batch, event) in enumerate(shapes):
            distribution = PRIORS[prior](torch.zeros(event)).to_event(len(event))
            with pyro.plate_stack(f"plates{i}", batch) if batch else poutine.scale(scale=1.0):
                pyro.sample(f"z{i}", distribution)

    return model


def moved(guide, *args):
    """The guide, with its parameters at no special place."""
    pyro.clear_param_store()
    pyro.set_rng_seed(2)
    with torch.no_grad():
        guide(*args)
        for parameter in parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return guide


def covariance(guide, name):
    """Mean and covariance of what the guide draws before it is mapped."""
    if name == "AutoNormal":
        parts = [(guide.locs, guide.scales)]
        sites = list(guide.prototype_trace.stochastic_nodes)
        loc = torch.cat([getattr(parts[0][0], site).reshape(-1) for site in sites])
        return loc, torch.cat([getattr(parts[0][1], s).reshape(-1) for s in sites]).diag().square()
    posterior = guide.get_posterior()
    if name == "AutoDiagonalNormal":
        return posterior.mean, posterior.variance.diag()
    return posterior.mean, posterior.covariance_matrix


@quiet
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("name", GUIDES)
def test_guides_of_any_shape(name, prior):
    """The KL to a standard Normal by hand, on the line or under exp; and what is sampled."""
    for shape, shapes in SHAPES.items():
        model = model_of(shapes, prior)
        guide = moved(GUIDES[name](model))
        sampled = with_seed(TraceKL_ELBO(mean_field="never"), model, guide)
        assert sampled == pytest.approx(with_seed(Trace_ELBO(), model, guide), rel=1e-4), shape
        elbo = TraceKL_ELBO()
        loss = elbo.loss(model, guide)
        assert all(row.exact for row in elbo.report), shape
        if name != "AutoStructured":
            loc, cov = covariance(guide, name)
            kl = 0.5 * (cov.trace() + loc @ loc - len(loc) - cov.double().logdet())
            assert loss == pytest.approx(kl.item(), rel=1e-4), shape


@quiet
def test_another_guide_of_the_same_structure_has_its_own_parameters():
    model = model_of(SHAPES["several"], "half line")
    for name in GUIDES:
        elbo, losses = TraceKL_ELBO(), []
        for shift in (0.0, 1.0):
            guide = moved(GUIDES[name](model))
            with torch.no_grad():
                for parameter in parameters():
                    parameter.add_(shift)
            losses.append((with_seed(elbo, model, guide), with_seed(TraceKL_ELBO(), model, guide)))
        assert all(one == pytest.approx(fresh, rel=1e-6) for one, fresh in losses), name


# --- masks inside an event ----------------------------------------------------------------------

SOME = torch.tensor([True, False, True])
MASKS = {
    "none": lambda distribution: distribution.to_event(1),
    "True": lambda distribution: distribution.mask(True).to_event(1),
    "False inside": lambda distribution: distribution.mask(False).to_event(1),
    "False inside, in another place": lambda d: d.to_event(1).to_event(0).mask(False),
    "some": lambda distribution: distribution.mask(SOME).to_event(1),
    "others": lambda distribution: distribution.mask(~SOME).to_event(1),
    "False before expand": lambda d: dist.Normal(d.loc[0], d.scale[0])
    .mask(False).expand([3]).to_event(1),
    "under a map": lambda distribution: dist.TransformedDistribution(
        distribution.mask(SOME), [dist.transforms.AffineTransform(0.0, 1.0)]
    ).to_event(1),
}  # fmt: skip
HIDES = {"False inside": 0, "False before expand": 0, "False inside, in another place": 0}


@quiet
@pytest.mark.parametrize("of_prior", MASKS)
@pytest.mark.parametrize("of_guide", [*MASKS, "AutoNormal", "AutoDiagonalNormal"])
def test_masks_inside_an_event(of_prior, of_guide):
    """Trace_ELBO's mean, which keeps what either side counts; a KL only where they agree."""

    def model():
        pyro.sample("z", MASKS[of_prior](dist.Normal(torch.zeros(3), torch.ones(3))))

    def by_hand():
        pyro.sample("z", MASKS[of_guide](dist.Normal(torch.ones(3), torch.ones(3))))

    guide = by_hand if of_guide in MASKS else moved(GUIDES[of_guide](model))
    elbo = TraceKL_ELBO()
    loss = with_seed(elbo, model, guide)
    if elbo.report["z"].method == "monte carlo":
        assert loss == pytest.approx(with_seed(Trace_ELBO(), model, guide), rel=1e-4, abs=1e-5)
    else:
        counts = {"none": 3, "True": 3, "some": 2, "others": 1, "under a map": 2}.get(of_prior, 0)
        if of_guide in MASKS and "False inside, in another place" not in (of_guide, of_prior):
            assert loss == pytest.approx(0.5 * counts, abs=1e-5)
        kwargs = dict(num_particles=20_000, vectorize_particles=True, max_plate_nesting=0)
        assert loss == pytest.approx(Trace_ELBO(**kwargs).loss(model, guide), abs=0.1)


# --- dependences that change --------------------------------------------------------------------


def branch(b):
    return torch.tensor(2.0) if b > 0.3 else torch.tensor(-2.0)


CONSTANTS = torch.tensor(1.0), torch.tensor(2.0)


def write(b):
    v = torch.zeros(2)
    v[0] = b
    return v.sum()


def write_through_a_view(b):
    v = torch.zeros(4)
    v.view(2, 2)[1].copy_(b)
    return v.sum()


WAYS = {
    "arithmetic": lambda b: 2 * b,
    "zero": lambda b: 0 * b,
    "detach": lambda b: 2 * b.detach(),
    "item": lambda b: torch.tensor(b.item()),
    "float": lambda b: torch.full((), float(b)),
    "numpy": lambda b: torch.from_numpy(b.detach().numpy().copy()),
    "list": lambda b: torch.tensor([b]).squeeze(),
    "tolist": lambda b: torch.as_tensor(b.tolist()),
    "write in place": write,
    "write through a view": write_through_a_view,
    "branch": branch,
    "branch between constants": lambda b: CONSTANTS[0] if b > 0 else CONSTANTS[1],
    "index": lambda b: CONSTANTS[int(b > 0)],
    "where": lambda b: torch.where(b > 0, *CONSTANTS),
    "boolean index": lambda b: torch.arange(3.0)[torch.stack([b, b, b]) > 0].sum(),
    "length": lambda b: torch.tensor(float(len(torch.ones(2)[b.expand(2) > 0]))),
    "vmap": lambda b: torch.func.vmap(lambda x: x * b)(torch.ones(2)).sum(),
    "sparse": lambda b: torch.stack([b, b]).to_sparse().to_dense().sum(),
    "put": lambda b: torch.zeros(2).index_put((torch.tensor([0]),), b).sum(),
}
HARMLESS = {
    "constant": lambda b: torch.tensor(1.0),
    "shape": lambda b: torch.zeros(b.shape),
    "type": lambda b: torch.ones((), dtype=b.dtype),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("on", ["model", "guide"])
def test_no_dependence_is_missed(on, validate):
    """Model a -> b, guide b -> a, by every way on which a number travels."""
    for way, function in {**WAYS, **HARMLESS}.items():
        in_model, in_guide = (
            (function, WAYS["arithmetic"]) if on == "model" else (WAYS["arithmetic"], function)
        )

        def model(function=in_model):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            pyro.sample("b", dist.Normal(function(a), 1.0))

        def guide(function=in_guide):
            b = pyro.sample("b", dist.Normal(torch.tensor(1.0, requires_grad=True), 1.0))
            pyro.sample("a", dist.Normal(function(b), 0.7))

        watch = Watch()
        with pyro.validation_enabled(validate):
            with watch.guide():
                guide_trace = poutine.trace(guide).get_trace()
            with watch.model():
                model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace()
            seen = watch.reached_by(model_trace.nodes["b"], ["b"])
        assert seen == ({"b"} if way in WAYS else set()), way


def flagged(flag):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    pyro.sample("b", dist.Normal(2 * a if flag else torch.tensor(0.0), 1.0))


def flagged_mask(flag):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    with poutine.mask(mask=a > 0 if flag else torch.tensor(True)):
        pyro.sample("b", dist.Normal(0.0, 1.0))


def late_guide(flag):
    b = pyro.sample("b", dist.Normal(0.5, 1.0))
    pyro.sample("a", dist.Normal(1.5 * b, 0.5))


@pytest.mark.parametrize("make", [TraceKL_ELBO, JitTraceKL_ELBO])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@quiet
def test_a_plan_does_not_outlive_the_dependences_it_was_made_for(make):
    elbo = make()
    for flag in (False, True, False, True):
        if make is TraceKL_ELBO:
            elbo.loss(flagged, late_guide, flag)
        else:
            elbo.loss_and_grads(flagged, late_guide, flag=flag)
            elbo.loss_and_grads(flagged, late_guide, flag=flag)
        assert elbo.report["a"].method == "closed form"
        assert elbo.report["b"].method == ("monte carlo" if flag else "closed form")
    fresh = TraceKL_ELBO()
    losses = [with_seed(e, flagged, late_guide, True) for e in (elbo, fresh)]
    assert losses[0] == pytest.approx(losses[1])


@quiet
def test_a_mask_that_depends_on_a_later_site():
    def guide(flag):
        with poutine.mask(mask=torch.tensor(True)):
            b = pyro.sample("b", dist.Normal(0.5, 1.0))
        pyro.sample("a", dist.Normal(1.5 * b, 0.5))

    elbo = TraceKL_ELBO()
    elbo.loss(flagged_mask, guide, False)
    assert elbo.report["b"].exact
    losses = [with_seed(e, flagged_mask, guide, True) for e in (elbo, TraceKL_ELBO())]
    assert losses[0] == pytest.approx(losses[1])
    assert not elbo.report["b"].exact


def test_a_marginal_becomes_a_conditional():
    """A block of a joint guide is exact by its marginal only while its prior has no parents."""
    guide = moved(ag.AutoMultivariateNormal(flagged), False)
    elbo = TraceKL_ELBO()
    for flag in (False, True, False):
        elbo.loss(flagged, guide, flag)
        word = "given the sites before it" if flag else "exact marginal"
        assert word in elbo.report["b"].reason
    fresh, used = TraceKL_ELBO(), elbo
    assert with_seed(used, flagged, guide, True) == with_seed(fresh, flagged, guide, True)


def test_a_joint_guide_is_watched_only_where_a_prior_has_moved(monkeypatch):
    def model(loc):
        pyro.sample("a", dist.Normal(0.0, 1.0))
        pyro.sample("b", dist.Gamma(loc, 1.0))

    guide = moved(ag.AutoMultivariateNormal(model), torch.tensor(2.0))
    watched = []
    run = Watch.guide
    monkeypatch.setattr(Watch, "guide", lambda self: watched.append(1) or run(self))
    elbo = TraceKL_ELBO()
    words = []
    for loc in (2.0, 2.0, 3.0, 3.0, 3.0):
        elbo.loss(model, guide, torch.tensor(loc))
        words.append("marginal" in elbo.report["b"].reason)
    assert len(watched) == 2
    assert words == [True, True, False, True, True]
    elbo.vectorize_particles, elbo.max_plate_nesting = True, 0
    report = elbo.evaluate(model, guide, torch.tensor(3.0), num_particles=5)
    assert "marginal" in report["b"].reason  # more particles are no other prior


def test_sites_in_order_are_not_watched(monkeypatch):
    def guide(flag):
        a = pyro.sample("a", dist.Normal(0.5, 1.0))
        pyro.sample("b", dist.Normal(a, 0.5))

    elbo = TraceKL_ELBO()
    elbo.loss(flagged, guide, True)
    monkeypatch.setattr(Watch, "guide", lambda self: pytest.fail("watched"))
    elbo.loss(flagged, guide, False)


# --- infinities ---------------------------------------------------------------------------------


def infinite_beside(depends):
    def model():
        k = pyro.sample("k", dist.Bernoulli(0.5))
        with pyro.plate("rows", 2):
            pyro.sample("n", dist.Normal(0.0, 1.0))
            pyro.sample("z", dist.Uniform(torch.zeros(2) + (k if depends else 0.0), 3.0))

    def guide():
        loc = pyro.param("loc", torch.tensor([0.3, 0.6]))
        pyro.sample("k", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.3))))
        with pyro.plate("rows", 2):
            pyro.sample("n", dist.Normal(loc, 1.0))
            low = torch.tensor([1.5, -1.0]) * pyro.param("low", torch.tensor(1.0))
            pyro.sample("z", dist.Uniform(low, 2.0, validate_args=False))

    return model, guide


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Encountered inf:UserWarning")
@pytest.mark.parametrize("depends", [False, True])
@pytest.mark.parametrize("way", ["step", "vectorized", "differentiable", "capacity", "jit"])
def test_an_infinite_kl_leaves_the_other_gradients_as_they_are(way, depends):
    """One row of z is infinite: the gradients of k, n and the other row are theirs alone."""
    model, guide = infinite_beside(depends)
    kwargs = dict(num_particles=3)
    if way == "vectorized":
        kwargs.update(vectorize_particles=True, max_plate_nesting=1)
    if way == "capacity":
        kwargs.update(capacity=1.0)
    elbo = (JitTraceKL_ELBO if way == "jit" else TraceKL_ELBO)(**kwargs)
    step = elbo.differentiable_loss if way == "differentiable" else elbo.loss_and_grads
    with pyro.validation_enabled(False), pytest.warns(UserWarning, match="The KL of z is infin"):
        loss = step(model, guide)
    if way == "differentiable":
        loss.backward()
    assert float(torch.as_tensor(loss).detach()) == math.inf
    store = pyro.get_param_store()._params
    torch.testing.assert_close(store["loc"].grad, torch.tensor([0.3, 0.6]))
    # log 3 - log(2 - low) is the KL of the row that is finite, with low = 1.5 of the first row
    assert store["low"].grad.item() == pytest.approx(1.5 / 0.5, rel=1e-5)
    assert math.isfinite(store["logit"].grad.item())


@pytest.mark.parametrize("depends", [False, True])
@pytest.mark.filterwarnings("ignore:The KL of z is infinite:UserWarning")
def test_an_infinite_kl_is_no_cost_of_other_draws(depends):
    """Alone beside a Bernoulli, it leaves that its own gradient, which has no noise."""

    def model():
        k = pyro.sample("k", dist.Bernoulli(0.5))
        pyro.sample("z", dist.Gumbel(k if depends else 0.0, 1.0))

    def guide():
        pyro.sample("k", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.3))))
        pyro.sample("z", dist.Logistic(pyro.param("loc", torch.tensor(0.0)), 1.5))

    assert TraceKL_ELBO(num_particles=5).loss_and_grads(model, guide) == math.inf
    p = torch.sigmoid(torch.tensor(0.3))
    gradient = pyro.get_param_store()._params["logit"].grad
    assert gradient.item() == pytest.approx((p * (1 - p) * 0.3).item(), rel=1e-4)


def test_an_infinite_kl_is_told_once_with_its_cure():
    model, guide = infinite_beside(False)
    elbo = TraceKL_ELBO()
    with pyro.validation_enabled(False):
        with pytest.warns(UserWarning, match=r'z is infinite.*support.*infinite="sample"'):
            elbo.loss(model, guide)
        elbo.loss(model, guide)  # warnings are errors in this suite


def test_what_weighs_nothing_costs_nothing():
    model, guide = infinite_beside(False)
    with pyro.validation_enabled(False):
        elbo = TraceKL_ELBO(beta=pyro_kl.LinearWarmup(10))
        assert elbo.loss_and_grads(model, guide) == 0.0
        elbo = TraceKL_ELBO(beta={"z": 0.0})
        assert math.isfinite(elbo.loss_and_grads(model, guide))


def scale_model():
    pyro.sample("a", dist.Normal(0.0, 10.0))
    pyro.sample("sigma", dist.Uniform(0.0, 10.0))


def scale_guide():
    pyro.sample("a", dist.Normal(pyro.param("al", torch.tensor(0.5)), 0.1))
    loc = pyro.param("sl", torch.tensor(1.0), constraint=constraints.positive)
    pyro.sample("sigma", dist.Normal(loc, 0.05))


@quiet
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("make", [TraceKL_ELBO, JitTraceKL_ELBO])
@pytest.mark.parametrize("vectorized", [False, True])
def test_infinite_sample_goes_on_as_trace_elbo_does(make, vectorized):
    kwargs = dict(num_particles=4, vectorize_particles=vectorized, max_plate_nesting=0)
    elbo = make(infinite="sample", **kwargs)
    for _ in range(2):
        pyro.set_rng_seed(3)
        ours = elbo.loss_and_grads(scale_model, scale_guide)
        gradient = pyro.get_param_store()._params["sl"].grad.clone()
        pyro.get_param_store()._params["sl"].grad = None
        pyro.set_rng_seed(3)
        theirs = Trace_ELBO(**kwargs).loss_and_grads(scale_model, scale_guide)
        assert math.isfinite(ours)
        torch.testing.assert_close(gradient, pyro.get_param_store()._params["sl"].grad)
        pyro.get_param_store()._params["sl"].grad = None
    assert elbo.report["a"].method == "closed form"
    assert elbo.report["sigma"].method == "monte carlo"
    a = dist.Normal(0.5, 0.1), dist.Normal(0.0, 10.0)
    exact = torch.distributions.kl_divergence(*a).item()
    assert ours == pytest.approx(theirs, abs=2.5)  # the draws of a are in theirs alone
    assert elbo.report["a"].nats == pytest.approx(exact, rel=1e-5)
    assert 'infinite="sample"' in elbo.report["sigma"].reason


@quiet
def test_infinite_sample_is_exact_again_where_the_kl_is_finite():
    def model(low):
        pyro.sample("z", dist.Uniform(low, 3.0))

    def guide(low):
        pyro.sample("z", dist.Uniform(0.5, 1.0))

    elbo = TraceKL_ELBO(infinite="sample")
    with pyro.validation_enabled(False):
        for low, method in ((0.0, "closed form"), (0.9, "monte carlo"), (0.0, "closed form")):
            elbo.loss(model, guide, torch.tensor(low))
            assert elbo.report["z"].method == method
    assert 'infinite="sample"' not in elbo.report["z"].reason
    with pytest.raises(ValueError, match="infinite must be one of keep, sample"):
        TraceKL_ELBO(infinite="ignore")


# --- rows of a subsample ------------------------------------------------------------------------

DATA = torch.arange(6.0)


def on_rows(rows):
    with pyro.plate("data", 6, subsample=rows):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=DATA[torch.as_tensor(rows)])


def by_hand(same):
    def guide(rows):
        with pyro.plate("data", 6, **({"subsample": rows} if same else {"subsample_size": 2})):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    return guide


def plates(rows):
    return pyro.plate("data", 6, subsample=rows)


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize(
    ("make", "rows"),
    [
        (lambda: ag.AutoNormal(on_rows), [4, 4]),  # never what the guide draws
        (lambda: ag.AutoDelta(on_rows), [4, 4]),
        (lambda: by_hand(False), [4, 4]),
        (lambda: ag.AutoNormal(on_rows), [5, 4, 3, 2, 1, 0]),
    ],
)
def test_rows_that_the_guide_puts_in_the_place_of_the_models(make, rows, vectorized):
    elbo = TraceKL_ELBO(num_particles=2, vectorize_particles=vectorized, max_plate_nesting=1)
    with pytest.raises(ValueError, match=r"plate 'data' was given subsample=\[.*create_plates"):
        elbo.loss(on_rows, make(), torch.tensor(rows))


@quiet
def test_rows_that_are_the_models_own():
    elbo = TraceKL_ELBO()
    for rows in ([4, 5], [0, 3]):
        elbo.loss(on_rows, by_hand(True), rows)
        elbo.loss(on_rows, by_hand(True), torch.tensor(rows))
        elbo.loss(on_rows, ag.AutoNormal(on_rows, create_plates=plates), torch.tensor(rows))
    elbo.loss(on_rows, ag.AutoNormal(on_rows), torch.arange(6))  # all rows, in their order

    def without_plate(rows):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(0))

    with pyro.validation_enabled(False):
        elbo.loss(on_rows, without_plate, torch.tensor([4, 5]))

    def own_rows():
        with pyro.plate("data", 6, subsample_size=2) as rows:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=DATA[rows])

    elbo.loss(own_rows, ag.AutoNormal(own_rows))


# --- random models ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seed",
    [*random_models.SUITE, pytest.param(184, marks=pytest.mark.sweep)],  # a traced flow
)
def test_random_model(seed):
    """A few of those that `python -m tests.random_models` makes, with fewer draws."""
    verdict = random_models.run(seed, batches=12)
    assert verdict.worst < 4.2, verdict


def test_flat_priors_with_the_shapes_that_pyro_takes():
    """Plain tuples as shapes, and vectors whose support is declared for numbers."""

    def model():
        pyro.sample("positive", dist.ImproperUniform(constraints.positive, (), ()))
        pyro.sample("vector", dist.ImproperUniform(constraints.real, (), (2,)))

    values = {"positive": torch.tensor(1.5), "vector": torch.ones(2)}
    guide = ag.AutoNormal(model, init_loc_fn=ag.init_to_value(values=values), init_scale=0.3)
    elbo = TraceKL_ELBO()
    loss = elbo.loss(model, guide)
    normal = 0.5 * math.log(2 * math.pi * math.e) + math.log(0.3)
    assert elbo.report.kls["vector"] == pytest.approx(-2 * normal, rel=1e-5)
    assert elbo.report.kls["positive"] == pytest.approx(-normal - math.log(1.5), rel=1e-5)
    assert loss == pytest.approx(-3 * normal - math.log(1.5), rel=1e-5)


def test_a_product_of_one_multivariate_normal_is_exact_under_a_joint_guide():
    def model():
        covariance = 2 * torch.eye(3)
        pyro.sample("z", dist.MultivariateNormal(torch.zeros(1, 3), covariance).to_event(1))
        pyro.sample("s", dist.Normal(0.0, 1.0))

    guide, elbo = ag.AutoMultivariateNormal(model, init_scale=0.1), TraceKL_ELBO()
    guide()
    guide.loc.data.zero_()
    elbo.loss(model, guide)
    row = elbo.report["z"]
    assert row.method == "closed form"
    assert row.nats == pytest.approx(1.5 * (0.005 - 1 - math.log(0.005)), rel=1e-5)


@quiet
@pytest.mark.parametrize("is_support_map", [True, False])
def test_a_point_that_is_another_image_of_its_normal_is_sampled(is_support_map):
    """A Normal and a Delta are one distribution if the map is that of the prior's support."""
    transform = dist.transforms.ExpTransform() if is_support_map else torch.nn.Softplus()

    def model():
        pyro.sample("scale", dist.Gamma(2.0, 2.0))

    def guide():
        u = pyro.sample("u", dist.Normal(0.0, 0.3), infer={"is_auxiliary": True})
        slope = u if is_support_map else torch.nn.functional.logsigmoid(u)
        pyro.sample("scale", dist.Delta(transform(u), log_density=-slope))

    elbo = TraceKL_ELBO()
    elbo.loss(model, guide)
    row = elbo.report["scale"]
    assert row.method == ("closed form" if is_support_map else "monte carlo")
    assert ("not its image under biject_to" in row.reason) is not is_support_map
