"""TraceEnumKL_ELBO against Pyro's TraceEnum_ELBO, and against sums by hand."""

import copy
import math
import pickle
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal

import pyro_kl
from pyro_kl import TraceEnumKL_ELBO

from . import models

CASES = {
    "mixture": 1, "assigned_mixture": 1, "in_turn": 0, "prior_inside": 1, "dependent_guide": 1,
    "nested_plates": 2, "hidden_markov": 1, "several_draws": 1,
}  # fmt: skip
SETTINGS = {
    "one": {},
    "two": {"num_particles": 2},
    "vectorised": {"num_particles": 3, "vectorize_particles": True},
}
VECTORISED = ("in_turn", "prior_inside", "dependent_guide", "nested_plates", "several_draws")
RUNS = [(name, s) for name in CASES for s in SETTINGS if s != "vectorised" or name in VECTORISED]


pytestmark = pytest.mark.usefixtures("double")


def loss_and_gradient(elbo, model, guide, seed=0):
    pyro.set_rng_seed(seed)
    elbo.loss(model, guide)  # makes the parameters
    leaves = dict(pyro.get_param_store().named_parameters())
    for leaf in leaves.values():
        leaf.grad = None
    loss = elbo.loss_and_grads(model, guide)
    return loss, {
        name: torch.zeros(()) if x.grad is None else x.grad.clone() for name, x in leaves.items()
    }


# --- against TraceEnum_ELBO ----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "setting"), RUNS)
def test_sampled_kls_are_those_of_trace_enum_elbo(name, setting):
    """With mean_field="never" the loss and each gradient are Pyro's, draw by draw."""
    model, guide = getattr(models, name)()
    options = {"max_plate_nesting": CASES[name], **SETTINGS[setting]}
    theirs = loss_and_gradient(TraceEnum_ELBO(**options), model, guide)
    ours = loss_and_gradient(TraceEnumKL_ELBO(**options, mean_field="never"), model, guide)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "setting"), RUNS)
def test_the_report_adds_up_to_the_loss(name, setting):
    model, guide = getattr(models, name)()
    elbo = TraceEnumKL_ELBO(max_plate_nesting=CASES[name], **SETTINGS[setting])
    pyro.set_rng_seed(1)
    loss = elbo.loss(model, guide)
    report = elbo.report
    assert -report.elbo == pytest.approx(loss, abs=1e-10)
    assert report.loss == pytest.approx(loss, abs=1e-10)
    assert len(report.kls) == len(report) - len({r.site for r in report if r.kind == "likelihood"})


def test_gradients_of_draws_in_expectation():
    """A site without reparametrisation: both ELBOs have gradients of the same mean."""
    options = {"num_particles": 400, "vectorize_particles": True, "max_plate_nesting": 1}
    options["strict_enumeration_warning"] = False
    model, guide = models.drawn_component()
    means, variances = [], []
    for elbo in (TraceEnum_ELBO(**options), TraceEnumKL_ELBO(**options)):
        runs = []
        for seed in range(40):
            loss, gradients = loss_and_gradient(elbo, model, guide, seed)
            runs.append(
                torch.cat([torch.tensor([loss]), *(x.reshape(-1) for x in gradients.values())])
            )
        every = torch.stack(runs)
        means.append(every.mean(0))
        variances.append(every.var(0) / len(runs))
    z = (means[0] - means[1]) / (variances[0] + variances[1] + 1e-12).sqrt()
    assert z.abs().max() < 4.5
    assert (variances[1] < 1.1 * variances[0]).all()


# --- sums by hand --------------------------------------------------------------------------------


def two_components():
    @config_enumerate
    def model():
        loc = pyro.sample("loc", dist.Normal(torch.tensor([0.0, 8.0]), 3.0).to_event(1))
        with pyro.plate("n", 5):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])))
            pyro.sample("x", dist.Normal(loc[k], 2.0), obs=models.DATA)

    def guide():
        pyro.sample("loc", dist.Delta(torch.tensor([1.0, 9.0])).to_event(1))

    return model, guide


def test_what_a_sum_is_shown_as():
    """The report has the exact posterior's expected log likelihood, and its KL."""
    elbo = TraceEnumKL_ELBO(max_plate_nesting=1)
    elbo.loss(*two_components())
    report = elbo.report
    prior = torch.tensor([0.3, 0.7]).log()
    log_f = dist.Normal(torch.tensor([1.0, 9.0]), 2.0).log_prob(models.DATA[:, None])
    posterior = (prior + log_f).softmax(-1)
    assert report["x"].nats == pytest.approx(float((posterior * log_f).sum()))
    kl = posterior * (posterior.log() - prior)
    assert report["k"].nats == pytest.approx(float(kl.sum()))
    assert (report["k"].method, report["k"].shape, report["x"].shape) == ("summed out", (5,), (5,))
    assert report.elbo - report.log_likelihood == pytest.approx(-report.kl)


def test_a_prior_inside_of_a_sum_has_its_power():
    """beta weighs log q - log p(z | k) also where log p is inside of the sum over k."""
    beta, w, at = 0.3, torch.tensor([0.4, 0.6]), torch.tensor([-1.0, 2.0])

    @config_enumerate
    def model():
        k = pyro.sample("k", dist.Categorical(w))
        z = pyro.sample("z", dist.Normal(at[k], 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.5))

    def guide():
        return pyro.sample("z", dist.Normal(0.0, 1.0))

    elbo = TraceEnumKL_ELBO(max_plate_nesting=0, beta=beta)
    pyro.set_rng_seed(3)
    z = guide()
    pyro.set_rng_seed(3)
    loss = elbo.loss(model, guide)
    log_sum = (w.log() + beta * dist.Normal(at, 1.0).log_prob(z)).logsumexp(-1)
    log_x = dist.Normal(z, 1.0).log_prob(torch.tensor(0.5))
    expected = beta * dist.Normal(0.0, 1.0).log_prob(z) - log_sum - log_x
    assert loss == pytest.approx(float(expected))
    assert elbo.report.loss == pytest.approx(loss)


def test_an_enumerated_prior_has_the_kl_of_each_value():
    """E_q(k) KL(q(z | k) || p(z | k)), without a draw."""
    q, prior = torch.tensor([0.3, 0.7]), torch.tensor([0.5, 0.5])
    loc, at = torch.tensor([0.0, 1.0]), torch.tensor([-1.0, 2.0])

    def model():
        k = pyro.sample("k", dist.Categorical(prior))
        pyro.sample("z", dist.Normal(at[k], 1.0))

    @config_enumerate
    def guide():
        k = pyro.sample("k", dist.Categorical(q))
        pyro.sample("z", dist.Normal(loc[k], 1.0))

    elbo = TraceEnumKL_ELBO(max_plate_nesting=0)
    elbo.loss(model, guide)
    report = elbo.report
    assert report["z"].nats == pytest.approx(float((q * (loc - at).square() / 2).sum()))
    assert report["k"].nats == pytest.approx(float((q * (q / prior).log()).sum()))
    assert (report["z"].method, report["k"].method) == ("closed form", "exact sum")
    assert report["z"].per_dimension == pytest.approx(report["z"].nats)
    bits = TraceEnumKL_ELBO(max_plate_nesting=0, free_bits={"z": 100.0}).loss(model, guide)
    assert bits == pytest.approx(100.0 + report["k"].nats)


@pytest.mark.filterwarnings("ignore:The KL of .*(infinite|sampled):UserWarning")
def test_an_infinite_kl_leaves_the_gradient_of_the_rest():
    """A Normal has mass where a Uniform has none, for each value of k."""

    def model():
        k = pyro.sample("k", dist.Categorical(torch.ones(2)))
        pyro.sample("z", dist.Uniform(-5.0, 5.0, validate_args=False))
        pyro.sample("x", dist.Normal(k, 1.0), obs=torch.tensor(0.7))

    @config_enumerate
    def guide():
        k = pyro.sample("k", dist.Categorical(models.simplex("q", [0.3, 0.7])))
        pyro.sample("z", dist.Normal(torch.tensor([0.0, 1.0])[k], 0.1))

    loss, infinite = loss_and_gradient(TraceEnumKL_ELBO(max_plate_nesting=0), model, guide)
    assert loss == torch.inf
    without = poutine.block(model, hide=["z"]), poutine.block(guide, hide=["z"])
    _, finite = loss_and_gradient(TraceEnumKL_ELBO(max_plate_nesting=0), *without)
    torch.testing.assert_close(infinite, finite)
    sampled = TraceEnumKL_ELBO(max_plate_nesting=0, infinite="sample")
    assert torch.isfinite(torch.tensor(sampled.loss(model, guide)))


# --- the rest of the interface -------------------------------------------------------------------


@pytest.mark.parametrize("far", [16.0, 600.0])
def test_a_sum_whose_terms_are_all_small_does_not_vanish(far):
    """The only component that is possible has a density below the smallest float of float32."""
    locs = torch.tensor([far, 0.0])

    @config_enumerate
    def model():
        w = pyro.param("w", torch.tensor(0.0))
        with pyro.plate("rows", 2):
            k = pyro.sample("k", dist.Categorical(logits=torch.tensor([-math.inf, 0.0])))
            pyro.sample("x", dist.Normal(locs[k] + w, 1.0), obs=torch.tensor([0.5, far]))

    elbo = TraceEnumKL_ELBO(max_plate_nesting=1)
    loss = elbo.loss_and_grads(model, lambda: None)
    by_hand = -dist.Normal(0.0, 1.0).log_prob(torch.tensor([0.5, far])).sum()
    assert loss == pytest.approx(float(by_hand))
    assert float(pyro.param("w").grad) == pytest.approx(-0.5 - far)
    assert elbo.report["k"].nats == pytest.approx(0.0, abs=1e-3)


def test_impossible_data_are_not_charged_to_the_label():
    low = torch.tensor([5.0, 6.0])

    @config_enumerate
    def model():
        with pyro.plate("rows", 2):
            k = pyro.sample("k", dist.Categorical(torch.ones(2)))
            x = torch.tensor([0.5, 6.5])
            pyro.sample("x", dist.Uniform(low[k], 7.0, validate_args=False), obs=x)

    elbo = TraceEnumKL_ELBO(max_plate_nesting=1)
    assert elbo.loss(model, lambda: None) == math.inf
    assert elbo.report["x"].nats == -math.inf
    assert 0 < elbo.report["k"].nats < 0.1  # of the second row


def test_marginals_and_draws_of_what_is_summed_out():
    model, guide = models.mixture()
    elbo = TraceEnumKL_ELBO(max_plate_nesting=1)
    pyro.set_rng_seed(2)
    ours = elbo.compute_marginals(model, guide)["k"].probs
    pyro.set_rng_seed(2)
    theirs = TraceEnum_ELBO(max_plate_nesting=1).compute_marginals(model, guide)["k"].probs
    torch.testing.assert_close(ours, theirs)
    elbo.sample_posterior(model, guide)
    assert isinstance(elbo, TraceEnum_ELBO)


def test_copies():
    model, guide = models.mixture()
    elbo = TraceEnumKL_ELBO(max_plate_nesting=1)
    elbo.loss(model, guide)
    for other in (copy.deepcopy(elbo), pickle.loads(pickle.dumps(elbo))):
        pyro.set_rng_seed(0)
        expected = elbo.loss(model, guide)
        pyro.set_rng_seed(0)
        assert other.loss(model, guide) == expected


def test_the_nesting_of_plates_is_guessed():
    model, guide = models.nested_plates()
    elbo = TraceEnumKL_ELBO()
    elbo.loss(model, guide)
    assert elbo.max_plate_nesting == 2


def test_an_autoguide_is_exact():
    model = config_enumerate(models.mixture_model)
    guide = AutoNormal(poutine.block(model, hide=["k"]))
    report = TraceEnumKL_ELBO(max_plate_nesting=1).evaluate(model, guide, num_particles=3)
    assert [report[site].standard_error for site in ("w", "s", "loc")] == [0, 0, 0]
    assert report["k"].method == "summed out"


def test_a_compiled_step_is_the_same():
    losses = []
    for how in (None, "fx"):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        model, guide = models.dependent_guide()
        elbo = TraceEnumKL_ELBO(max_plate_nesting=1)
        svi = pyro_kl.SVI(
            model, guide, torch.optim.Adam, elbo, optim_args={"lr": 0.01}, compile=how
        )
        losses.append([svi.step() for _ in range(4)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-10)


@pytest.mark.filterwarnings("ignore")  # of torch.jit
@pytest.mark.parametrize("name", ["mixture", "dependent_guide"])
def test_a_traced_step_is_the_same(name):
    model, guide = getattr(models, name)()
    options = {"max_plate_nesting": CASES[name]}
    expected = loss_and_gradient(TraceEnumKL_ELBO(**options), model, guide)
    elbo = pyro_kl.JitTraceEnumKL_ELBO(**options, ignore_jit_warnings=True)
    elbo.loss_and_grads(model, guide)  # is traced
    torch.testing.assert_close(loss_and_gradient(elbo, model, guide), expected)
    assert elbo.report.loss == pytest.approx(expected[0])


@pytest.mark.parametrize(
    "options", [{"control_variate": True}, {"likelihood": "exact"}], ids=lambda x: next(iter(x))
)
def test_options_that_average_over_draws_are_refused(options):
    with pytest.raises(ValueError, match=f"TraceEnumKL_ELBO has no {next(iter(options))}"):
        TraceEnumKL_ELBO(**options)


@pytest.mark.parametrize("options", [{"free_bits": 0.1}, {"capacity": 0.1}])
def test_a_prior_inside_of_a_sum_has_no_kl_to_be_bent(options):
    with pytest.raises(ValueError, match="cannot be used for z: its prior is inside of the sum"):
        TraceEnumKL_ELBO(max_plate_nesting=1, **options).loss(*models.prior_inside())


def test_kl_balance_needs_a_guide_without_enumeration():
    with pytest.raises(ValueError, match=r"kl_balance .* enumerated or have a score function"):
        TraceEnumKL_ELBO(max_plate_nesting=1, kl_balance=0.8).loss(*models.dependent_guide())
    TraceEnumKL_ELBO(max_plate_nesting=1, kl_balance=0.8).loss(*models.mixture())


@pytest.mark.parametrize(
    ("distribution", "mark", "error", "message"),
    [
        (dist.Poisson(2.0), "parallel", NotImplementedError, "k cannot be enumerated, .*Poisson"),
        (
            dist.Bernoulli(torch.ones(2) / 2).to_event(1), "parallel", NotImplementedError,
            "k cannot be enumerated, .*cartesian product.* put a plate in the place of to_event",
        ),
        (dist.Bernoulli(0.5), "paralel", ValueError, "k is marked by .*'paralel'"),
        (dist.Bernoulli(0.5), True, ValueError, "k is marked by .*True"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("side", ["model", "guide"])
def test_a_mark_that_cannot_work_is_named(distribution, mark, error, message, side):
    def site():
        pyro.sample("k", distribution, infer={"enumerate": mark})

    def none():
        pass

    elbo = TraceEnumKL_ELBO(max_plate_nesting=0)
    with pytest.raises(error, match=message):
        elbo.loss(site, none if side == "model" else site)


def test_nothing_to_enumerate_is_told_once():
    elbo = TraceEnumKL_ELBO(max_plate_nesting=1)
    with pytest.warns(UserWarning, match="found no sample sites configured"):
        elbo.loss(*models.drawn_mixture())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        elbo.loss(*models.drawn_mixture())


def test_the_report_says_why_a_prior_inside_of_a_sum_is_sampled():
    elbo = TraceEnumKL_ELBO(max_plate_nesting=1)
    elbo.loss(*models.prior_inside())
    row = elbo.report["z"]
    assert row.method == "monte carlo"
    assert row.reason == "its prior depends on k, which the model sums out"


@pytest.mark.parametrize("history", [1, 2])
def test_markov_is_range_where_guide_and_model_enumerate(history):
    """Pyro gives v_0 of the model the dim of w_1, which the guide enumerates."""
    p = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
    q = torch.tensor([[0.5, 0.5], [0.4, 0.6]])

    def both(steps):
        @config_enumerate
        def guide():
            w = 0
            for t in steps():
                w = pyro.sample(f"w_{t}", dist.Categorical(q[w]))

        def model():
            w = v = u = 0
            for t in steps():
                w = pyro.sample(f"w_{t}", dist.Categorical(p[w]))
                prior = dist.Categorical(p[v] if history == 1 else p[v] * p[u])
                u, v = v, pyro.sample(f"v_{t}", prior, infer={"enumerate": "parallel"})
                pyro.sample(f"y_{t}", dist.Normal(w - v, 1.0), obs=torch.tensor(0.3))

        return model, guide

    elbo = TraceEnumKL_ELBO(max_plate_nesting=0)
    markov = elbo.loss(*both(lambda: pyro.markov(range(4), history=history)))
    assert markov == pytest.approx(elbo.loss(*both(lambda: range(4))), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"free_bits": {"k": 0.5}}, "free_bits cannot be used for k, which the model sums out"),
        ({"kl_balance": {"k": 0.5}}, "kl_balance cannot be used for k, which the model sums"),
        ({"beta": {"k": 0.0}}, "beta of k, .* must be above 0"),
    ],
)
def test_what_cannot_weigh_a_site_that_is_summed_out(options, message):
    elbo = TraceEnumKL_ELBO(max_plate_nesting=1, **options)
    with pytest.raises(ValueError, match=message):
        elbo.loss(*models.mixture())


def test_sites_of_one_sum_have_one_weight():
    @config_enumerate
    def model():
        a = pyro.sample("a", dist.Bernoulli(0.3))
        b = pyro.sample("b", dist.Bernoulli(0.2 + 0.5 * a))
        pyro.sample("x", dist.Normal(a - b, 1.0), obs=torch.tensor(0.5))

    elbo = TraceEnumKL_ELBO(max_plate_nesting=0, beta={"a": 0.5})
    with pytest.raises(ValueError, match="a, b are summed out together"):
        elbo.loss(model, lambda: None)
    TraceEnumKL_ELBO(max_plate_nesting=0, beta={"a": 0.5, "b": 0.5}).loss(model, lambda: None)


def test_messages_about_many_sites_are_short():
    @config_enumerate
    def chain():
        s = pyro.sample("s_0", dist.Bernoulli(0.3))
        for t in pyro.markov(range(1, 20)):
            s = pyro.sample(f"s_{t}", dist.Bernoulli(0.2 + 0.5 * s))
            pyro.sample(f"x_{t}", dist.Normal(s, 1.0), obs=torch.tensor(0.5))

    elbo = TraceEnumKL_ELBO(max_plate_nesting=0)
    report = elbo.evaluate(chain, lambda: None, num_particles=1)
    with pytest.raises(KeyError, match=r"summed out together with 's_0', .* all 20 sites"):
        report["s_7"]
    with pytest.raises(KeyError, match=r"there are x_1, x_2, \.\.\., s_0 \(20 sites\)"):
        report["loc"]
    for named, message in (
        ("s_3", r"s_0, s_1, \.\.\., s_19 \(20 sites\) are summed"),
        ("loc", r"latent sites are: s_0, s_1, \.\.\., s_19 \(20 sites\)"),
    ):
        with pytest.raises(ValueError, match=message):
            TraceEnumKL_ELBO(max_plate_nesting=0, beta={named: 0.5}).loss(chain, lambda: None)


@pytest.mark.parametrize("beta", [0.4, 3.0])
def test_the_weight_of_a_sum_is_that_of_the_best_guide(beta):
    """The guide with probabilities in proportion to p f^(1 / beta) has the same loss and rows."""
    p, loc, x = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([-1.0, 0.5, 2.0]), torch.tensor(1.2)

    @config_enumerate
    def model():
        k = pyro.sample("k", dist.Categorical(p))
        with poutine.scale(scale=1.0):
            pyro.sample("x", dist.Normal(loc[k], 0.7), obs=x)

    @config_enumerate
    def best():
        logits = p.log() + dist.Normal(loc, 0.7).log_prob(x) / beta
        pyro.sample("k", dist.Categorical(logits=logits))

    elbo = TraceEnumKL_ELBO(max_plate_nesting=0, beta={"k": beta})
    loss = elbo.loss(model, best)
    expected = elbo.report
    assert elbo.loss(model, lambda: None) == pytest.approx(loss, rel=1e-6)
    assert elbo.report.loss == pytest.approx(loss, rel=1e-6)
    for site in ("k", "x"):
        assert elbo.report[site].nats == pytest.approx(expected[site].nats, rel=1e-5)
    assert elbo.report["k"].weight == beta
    assert f"best posterior at beta = {beta:g}" in elbo.report["k"].reason


def test_one_schedule_of_many_sites_is_told_once():
    warm = pyro_kl.LinearWarmup(3, start=4.0, end=2.0)
    with pytest.warns(
        UserWarning, match=r"schedule of beta\['a'\] and 2 others ends at 2"
    ) as told:
        TraceEnumKL_ELBO(beta=dict.fromkeys("abc", warm))
    assert len(told) == 1


def test_a_weight_that_falls_to_one_anneals():
    model, guide = models.mixture()
    warm = pyro_kl.LinearWarmup(3, start=4.0)
    elbo = TraceEnumKL_ELBO(max_plate_nesting=1, beta={"k": warm})
    plain = TraceEnumKL_ELBO(max_plate_nesting=1)
    losses = []
    for one in (elbo, plain):
        pyro.set_rng_seed(0)
        losses.append([one.loss_and_grads(model, guide) for _ in range(5)])
    assert losses[0][0] > losses[1][0]
    assert losses[0][4] == pytest.approx(losses[1][4])


def test_baselines_are_refused():
    def guide():
        models.mixture_guide()
        with pyro.plate("n", 5):
            q = dist.Categorical(torch.ones(5, 2))
            pyro.sample("k", q, infer={"baseline": {"use_decaying_avg_baseline": True}})

    elbo = TraceEnumKL_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
    with pytest.warns(UserWarning, match="no baselines: that of k is not used"):
        elbo.loss(models.mixture_model, guide)


@pytest.mark.parametrize(
    "name", ["nested_plates", pytest.param("in_turn", marks=pytest.mark.sweep)]
)
def test_sites_are_compared_with_enumeration(name):
    pyro.set_rng_seed(0)
    rows = pyro_kl.compare_sites(*getattr(models, name)(), num_particles=50)
    assert rows.largest_z < 4
    enumerated = {"in_turn": {"b0", "b1"}, "nested_plates": {"a"}}[name]
    found = [row for row in rows if row.site in enumerated]
    assert len(found) == len(enumerated)
    assert all(row.exact == pytest.approx(row.sampled, rel=1e-6) for row in found)


@pytest.mark.parametrize("how", ["parallel", "sequential"])
def test_an_enumerated_site_that_leaves_the_priors_support_has_an_infinite_kl(how):
    def model():
        pyro.sample("k", dist.Categorical(torch.tensor([0.0, 0.4, 0.6])))

    def guide():
        q = dist.Categorical(torch.tensor([0.2, 0.5, 0.3]))
        pyro.sample("k", q, infer={"enumerate": how})

    elbo = TraceEnumKL_ELBO(max_plate_nesting=0)
    with pytest.warns(UserWarning, match="The KL of k is infinite"):
        assert elbo.loss(model, guide) == float("inf")
    assert elbo.report["k"].nats == float("inf")


def test_rows_of_a_second_plate_are_no_dependency():
    """Nothing warns that the second plate's rows come after the first one's enumerated site."""

    def model():
        for name in ("a", "b"):
            with pyro.plate(f"rows_{name}", 6, subsample_size=3):
                pyro.sample(name, dist.Bernoulli(0.3), infer={"enumerate": "parallel"})

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = TraceEnumKL_ELBO(max_plate_nesting=1).loss(model, model)
    assert loss == pytest.approx(0.0)


def test_a_nesting_that_is_too_small_names_the_site():
    def model():
        with pyro.plate("rows", 3):
            pyro.sample("a", dist.Bernoulli(0.5))

    elbo = TraceEnumKL_ELBO(max_plate_nesting=0)
    with pytest.raises(ValueError, match="Error while computing log_prob at site 'a'"):
        elbo.loss(model, config_enumerate(model))


def test_a_mask_that_depends_on_an_enumerated_site():
    q, loc = torch.tensor([0.3, 0.7]), torch.tensor([1.0, 2.0])

    def model():
        with pyro.plate("n", 2):
            k = pyro.sample("k", dist.Categorical(torch.ones(2)))
            with poutine.mask(mask=k == 1):
                pyro.sample("z", dist.Normal(0.0, 1.0))

    @config_enumerate
    def guide():
        with pyro.plate("n", 2):
            k = pyro.sample("k", dist.Categorical(q))
            with poutine.mask(mask=k == 1):
                pyro.sample("z", dist.Normal(loc, 1.0))

    elbo = TraceEnumKL_ELBO(max_plate_nesting=1)
    elbo.loss(model, guide)
    assert elbo.report["z"].nats == pytest.approx(0.7 * float(loc.square().sum()) / 2)
    elbo = TraceEnumKL_ELBO(max_plate_nesting=1, free_bits=0.1, free_bits_per="element")
    with pytest.raises(ValueError, match="z cannot be counted per element: its mask depends"):
        elbo.loss(model, guide)


@pytest.mark.parametrize("how", ["parallel", "sequential"])
def test_an_enumerated_site_descends_from_what_its_probabilities_depend_on(how):
    """The guide enumerates d with probabilities that depend on c; the prior of c depends on d."""

    def model():
        d = pyro.sample("d", dist.Bernoulli(0.5))
        pyro.sample("c", dist.Normal(d, 1.0))

    def guide(depends):
        c = pyro.sample("c", dist.Normal(0.0, 1.0))
        probs = torch.sigmoid(c) if depends else torch.tensor(0.4)
        pyro.sample("d", dist.Bernoulli(probs), infer={"enumerate": how})

    elbo = TraceEnumKL_ELBO(max_plate_nesting=0)
    with pytest.warns(UserWarning, match="c: its prior depends on d, which the guide draws"):
        elbo.loss(model, lambda: guide(True))
    assert elbo.report["c"].method == "monte carlo"
    elbo.loss(model, lambda: guide(False))
    assert elbo.report["c"].method == "closed form"
    assert elbo.report["c"].nats == pytest.approx(0.4 * 0.5)


@pytest.mark.parametrize("place", ["mask", "scale"])
def test_a_mask_or_scale_by_an_enumerated_site_around_an_event(place):
    """The KL of z does not depend on e, but its mask or scale does: it is averaged over e."""
    kl, p = 0.5 * (0.25 - 1 - math.log(0.25)), torch.tensor([0.2, 0.5, 0.7])

    def around(e):
        return poutine.mask(mask=e.bool()) if place == "mask" else poutine.scale(scale=1 + e)

    def model():
        with pyro.plate("objects", 3):
            e = pyro.sample("e", dist.Bernoulli(p))
            with around(e):
                pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))

    def guide():
        with pyro.plate("objects", 3):
            e = pyro.sample("e", dist.Bernoulli(p), infer={"enumerate": "parallel"})
            with around(e):
                pyro.sample("z", dist.Normal(torch.zeros(3, 2), 0.5).to_event(1))

    elbo = TraceEnumKL_ELBO(max_plate_nesting=1)
    expected = 2 * kl * (p.sum().item() + 3 * (place == "scale"))
    assert elbo.loss(model, guide) == pytest.approx(expected, rel=1e-5)
    assert elbo.report["z"].nats == pytest.approx(expected, rel=1e-5)
