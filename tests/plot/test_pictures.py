"""The pictures: whose axes they are drawn on, what they say, and what they refuse."""

import math
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure

import pyro_kl
from pyro_kl import plot
from pyro_kl.plot.convergence import running_mean
from pyro_kl.registry.register import families

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[2]
MIXTURE = dist.MixtureSameFamily(
    dist.Categorical(torch.tensor([0.3, 0.7])),
    dist.Normal(torch.tensor([-3.0, 2.0]), torch.tensor([0.3, 1.0])),
)
#: Narrow peaks far apart, with other weights.
SPIKES = [
    dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([weight, 1 - weight])),
        dist.Normal(torch.tensor([-5.0, 5.0]), torch.tensor([1e-3, 1e-3])),
    )
    for weight in (0.5, 0.9)
]
#: p, q, and what the title says of them.
PAIRS = {
    "real line": (dist.Normal(1.0, 1.0), dist.Normal(0.0, 1.0), "0.5 nats (closed form)"),
    "half line": (dist.Gamma(2.0, 1.0), dist.LogNormal(0.0, 1.0), "0.1763 nats (closed form)"),
    "power tails": (dist.HalfCauchy(1.0), dist.HalfCauchy(3.0), "nats (closed form)"),
    "integral": (dist.LogNormal(0.0, 1.0), dist.HalfCauchy(1.0), "0.1004 nats (quadrature)"),
    "poles": (dist.Beta(0.5, 0.5), dist.Uniform(0.0, 1.0), "0.2416 nats (closed form)"),
    "far apart": (dist.Normal(0.0, 1.0), dist.Normal(50.0, 1.0), "1250 nats (closed form)"),
    "close": (dist.Normal(0.0, 1.0), dist.Normal(1e-3, 1.0), "5e-07 nats (closed form)"),
    "equal": (dist.Normal(0.0, 1.0), dist.Normal(0.0, 1.0), "0 nats (closed form)"),
    "heavier than q": (dist.Cauchy(0.0, 1.0), dist.Normal(0.0, 3.0), "= inf"),
    "wider than q": (dist.Uniform(0.0, 2.0), dist.Uniform(0.0, 1.0), "= inf"),
    "decades": (dist.LogNormal(0.0, 3.0), dist.LogNormal(1.0, 2.0), "nats (closed form)"),
    "circle": (dist.VonMises(0.0, 2.0), dist.VonMises(1.0, 1.0), "nats (closed form)"),
    "mixture": (MIXTURE, dist.Normal(0.0, 3.0), "nats (quadrature)"),
    "spikes": (SPIKES[0], SPIKES[1], "nats (quadrature)"),
    "two atoms": (dist.Bernoulli(0.5), dist.Bernoulli(0.3), "0.08718 nats (closed form)"),
    "counts": (dist.Poisson(3.0), dist.Geometric(0.3), "0.3425 nats (quadrature)"),
    "many counts": (dist.Poisson(300.0), dist.Poisson(320.0), "0.6384 nats (closed form)"),
    "thousands of counts": (dist.Geometric(1e-4), dist.Geometric(2e-4), "nats (closed form)"),
    "an atom too many": (dist.Binomial(5, 0.5), dist.Binomial(4, 0.5), "= inf"),
}
HISTORY = SimpleNamespace(
    steps=[0, 10, 20, 30],
    log_likelihood=[-500.0, -30.0, -20.0, -15.0],
    kl=[0.0, 4.0, 3.5, 3.0],
    kls={"weights": [0.0, 3.0, 2.5, 2.0], "_bias $": [0.0, 1.0, 1.0, 1.0]},
    elbo=[-500.0, -34.0, -23.5, -18.0],
)


@pytest.fixture(autouse=True)
def _close():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def report():
    """One site that is exact, one that is exact given it, and one that is sampled."""

    def model():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(x, 1.0))
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    def guide():
        x = pyro.sample("x", dist.Normal(1.0, 1.0))
        pyro.sample("y", dist.Normal(0.5 * x, 1.0))
        mixture = dist.MixtureSameFamily(
            dist.Categorical(torch.ones(2)), dist.Normal(torch.ones(2, 2), 1.0).to_event(1)
        )
        pyro.sample("z", mixture)

    pyro.set_rng_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that z is sampled
        return pyro_kl.TraceKL_ELBO().evaluate(model, guide, num_particles=50)


@pytest.fixture(scope="module")
def posterior():
    from pyro_kl.glm import LogisticRegression

    torch.manual_seed(0)
    X = torch.randn(200, 3)
    return LogisticRegression().fit(X, (X[:, 0] > 0.5).float()).posterior_


def texts(ax):
    """All that is written in the figure."""
    ax.figure.canvas.draw()
    return "\n".join(x.get_text() for x in ax.figure.findobj(matplotlib.text.Text))


def areas_of(ax):
    """The positive and the negative area that the legend of an integrand says."""
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    return [float(next(x for x in labels if f") {sign} 0" in x).split()[-2]) for sign in "><"]


@pytest.fixture(
    params=[
        "kl_integrand", "training", "elbo_terms", "prior_posterior", "convergence", "kl_matrix",
        "reward_against_kl", "site_kls", "coefficients", "divergences",
    ]
)  # fmt: skip
def draw(request, report, posterior):
    p, q, _ = PAIRS["half line"]
    return {
        "kl_integrand": lambda ax=None: plot.kl_integrand(p, q, ax=ax),
        "training": lambda ax=None: plot.training(HISTORY, ax=ax),
        "elbo_terms": lambda ax=None: plot.elbo_terms(HISTORY, optimum=-17.0, ax=ax),
        "prior_posterior": lambda ax=None: plot.prior_posterior(p, q, ax=ax),
        "convergence": lambda ax=None: plot.convergence(p, q, num_samples=200, ax=ax),
        "kl_matrix": lambda ax=None: plot.kl_matrix([p, q], ax=ax),
        "reward_against_kl": lambda ax=None: plot.reward_against_kl([1.0], [2.0], ax=ax),
        "site_kls": lambda ax=None: plot.site_kls(report, ax=ax),
        "coefficients": lambda ax=None: plot.coefficients(posterior, ax=ax),
        "divergences": lambda ax=None: plot.divergences(lambda _: (p, q), [0, 1], ax=ax),
    }[request.param]


# --- every picture ------------------------------------------------------------------------------


def test_the_given_axes_are_drawn_on_and_returned(draw):
    figure = Figure(layout="constrained")
    ax, other = figure.subplots(1, 2)
    assert draw(ax) is ax
    assert not pyplot.get_fignums()
    assert ax.has_data()
    assert not other.has_data()


def test_without_axes_a_figure_is_made(draw):
    ax = draw()
    assert pyplot.get_fignums() == [ax.figure.number]
    assert ax.has_data()


def test_the_direction_and_the_unit_are_written(draw):
    text = texts(draw())
    assert "||" in text
    assert "nats" in text


def test_a_picture_leaves_the_random_state_alone(draw):
    if "convergence" in draw.__code__.co_names:
        return  # its samples are the global state's, as it says
    torch.manual_seed(3)
    before = torch.get_rng_state()
    draw()
    assert torch.equal(before, torch.get_rng_state())


def test_all_functions_have_options_by_keyword_alone():
    import inspect

    for name in set(plot.__all__) - {"TrainingHistory"}:
        parameters = inspect.signature(getattr(plot, name)).parameters
        assert parameters["ax"].kind is inspect.Parameter.KEYWORD_ONLY
        assert list(parameters)[-1] == "ax"


def test_matplotlib_is_imported_to_draw_and_pyplot_to_make_a_figure():
    """In a process of its own: here the suite has imported both."""
    code = (
        "import sys, torch\nfrom pyro_kl import plot\nassert 'matplotlib' not in sys.modules\n"
        "from matplotlib.figure import Figure\n"
        "p, q = torch.distributions.Poisson(2.0), torch.distributions.Poisson(3.0)\n"
        "plot.kl_integrand(p, q, ax=Figure().subplots())\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120, check=True)


# --- the integrand ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRS)
def test_kl_integrand_says_the_kl(name):
    p, q, said = PAIRS[name]
    ax = plot.kl_integrand(p, q)
    title = ax.get_title("left")
    assert title.startswith("KL(p || q) = ")
    assert title.endswith(said)
    low, high = ax.get_xlim()
    assert all(map(math.isfinite, (low, high, *ax.get_ylim())))
    x = p.sample((2000,)).double()
    assert ((x > low) & (x < high)).double().mean() > 0.9


@pytest.mark.parametrize("name", PAIRS)
def test_the_areas_add_up_to_the_kl(name):
    p, q, _ = PAIRS[name]
    exact = float(pyro_kl.kl(p, q))
    positive, negative = areas_of(plot.kl_integrand(p, q))
    assert negative <= 0 or exact == 0
    torch.manual_seed(0)
    x = p.sample((100_000,))
    if math.isinf(exact):
        assert positive == math.inf
        return
    assert positive + negative == pytest.approx(exact, rel=1e-3, abs=1e-6)
    d = (p.log_prob(x) - q.log_prob(x)).double()
    error = float(d.clamp(max=0).std()) / math.sqrt(len(d))
    assert abs(negative - float(d.clamp(max=0).mean())) <= 5 * error + 1e-4 * abs(negative)


def test_parameters_may_require_a_gradient():
    p, q = dist.Normal(torch.tensor(1.0, requires_grad=True), 1.0), dist.Normal(0.0, 1.0)
    assert "0.5 nats" in plot.kl_integrand(p, q).get_title("left")
    assert "0.5 nats" in texts(plot.convergence(p, q, num_samples=100))
    assert "0.5" in texts(plot.kl_matrix([p], [q]))


@pytest.mark.parametrize("family", [x for x in families() if not x.vectors], ids=lambda x: x.name)
def test_every_family_can_be_drawn(family):
    p, q = map(family.make, family.examples[:2])
    figure = Figure()
    ax, other = figure.subplots(1, 2)
    positive, negative = areas_of(plot.kl_integrand(p, q, ax=ax))
    assert positive + negative == pytest.approx(float(pyro_kl.kl(p, q)), rel=1e-3)
    assert plot.prior_posterior(p, q, ax=other).has_data()


def test_kl_integrand_calls_p_and_q_by_their_names():
    p, q, _ = PAIRS["real line"]
    ax = plot.kl_integrand(p, q, names=("guide", "prior"), xlim=(-1.0, 2.0))
    assert "KL(guide || prior) = 0.5" in ax.get_title("left")
    assert "guide log(guide / prior) < 0" in texts(ax)
    assert ax.get_xlim() == (-1.0, 2.0)
    assert "of the areas is outside" in ax.get_xlabel()


def test_densities_are_drawn_larger_where_the_integrand_is():
    ax = plot.kl_integrand(*PAIRS["far apart"][:2])
    assert "1000 × p" in texts(ax)
    assert ax.lines[0].get_ydata().max() == pytest.approx(1000 * 0.39894, rel=1e-3)


def test_a_narrow_peak_is_drawn():
    ax = plot.kl_integrand(*SPIKES)
    assert ax.lines[0].get_ydata().max() == pytest.approx(0.5 * 398.94, rel=0.02)


def test_a_range_of_decades_is_logarithmic_and_keeps_its_areas():
    p, q, _ = PAIRS["decades"]
    ax = plot.kl_integrand(p, q)
    assert ax.get_xscale() == "log"
    x, y = (np.asarray(values) for values in ax.lines[0].get_data())
    area = ((y[1:] + y[:-1]) / 2 * np.diff(np.log(x))).sum()
    assert area == pytest.approx(1.0, abs=0.02)


# --- the others ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRS)
def test_prior_posterior_draws_both(name):
    p, q, _ = PAIRS[name]
    ax = plot.prior_posterior(p, q, name="rate $/h")
    assert ax.get_title("left").startswith("KL(posterior || prior) = ")
    assert {"prior", "posterior"} <= set(texts(ax).split("\n"))
    assert "rate $/h" in texts(ax).replace(r"\$", "$")


def test_prior_posterior_writes_the_kl_that_it_is_given():
    p, q, _ = PAIRS["real line"]
    assert "= 7.25 nats" in plot.prior_posterior(p, q, kl=7.25).get_title("left")
    estimate = pyro_kl.kl(p, q)
    assert "= 0.5 nats" in plot.prior_posterior(p, q, kl=estimate).get_title("left")


def test_training_draws_each_site_and_the_elbo():
    text = texts(plot.training(HISTORY))
    for part in ("KL of weights", "KL of _bias", "ELBO (right axis)", "ELBO = -18 nats"):
        assert part in text
    assert "begins at -500 nats, below the axis" in text


def test_training_draws_lines_where_a_kl_is_negative_or_missing():
    for value in (-0.5, math.nan):
        kls = {"weights": [0.0, value, 2.5, 2.0]}
        ax = plot.training(SimpleNamespace(**{**vars(HISTORY), "kls": kls}))
        assert np.array_equal(ax.lines[0].get_ydata(), kls["weights"], equal_nan=True)
    assert len(plot.training(HISTORY).collections) == 2


def test_elbo_terms_says_the_sum():
    text = texts(plot.elbo_terms(HISTORY, optimum=-17.0))
    assert "-18 = -15 - 3 nats after 30 steps" in text
    assert "largest ELBO: -17" in text
    assert "begins at -500 nats, below the axis" in text


def test_convergence_draws_the_running_mean_and_its_error():
    p, q = torch.distributions.Normal(1.0, 1.0), torch.distributions.Normal(0.0, 1.0)
    torch.manual_seed(0)
    count, mean, error, rounded = running_mean(p, q, 1000)
    assert rounded == 0
    torch.manual_seed(0)
    x = p.sample((1000,))
    ratio = (p.log_prob(x) - q.log_prob(x)).double().numpy()
    assert count[0] == 10
    assert count[-1] == 1000
    for n, m, e in zip(count.tolist(), mean, error, strict=True):
        assert m == pytest.approx(ratio[:n].mean(), abs=1e-9)
        assert e == pytest.approx(ratio[:n].std(ddof=1) / np.sqrt(n), rel=1e-6)


def test_convergence_stops_where_q_has_no_mass():
    ax = plot.convergence(*PAIRS["wider than q"][:2], num_samples=200)
    assert "Monte Carlo: inf" in texts(ax)
    assert all(map(math.isfinite, ax.get_ylim()))


def test_convergence_tells_that_samples_were_rounded():
    p, q = dist.Beta(torch.tensor(0.1), torch.tensor(0.1)), dist.Uniform(0.0, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = texts(plot.convergence(p, q, num_samples=200))
    assert "samples are rounded: it does not hold" in text


def test_convergence_without_a_formula_has_no_exact_line():
    p = dist.Dirichlet(torch.ones(3))
    mixture = dist.MixtureSameFamily(
        dist.Categorical(torch.ones(2)), dist.Dirichlet(torch.ones(2, 3) * 2)
    )
    ax = plot.convergence(p, mixture, num_samples=200, names=("guide", "prior"))
    assert ax.get_title("left") == "KL(guide || prior), sampled"
    assert ax.get_ylabel() == "KL(guide || prior), nats"


def test_kl_matrix_writes_every_kl_both_ways():
    ps = [dist.Normal(0.0, 1.0), dist.Gamma(2.0, 1.0)]
    forward, reverse = (
        texts(plot.kl_matrix(ps, names=["a", "b"], reverse=r)).split("\n") for r in (False, True)
    )
    assert "KL(p || q), nats: a row for p, a column for q" in forward
    assert "KL(q || p), nats: a row for p, a column for q" in reverse
    cells = ["0", "inf", f"{float(pyro_kl.kl(ps[1], ps[0])):.3g}", "0"]
    assert [x for x in forward if x in cells] == cells
    assert [x for x in reverse if x in cells] == [cells[i] for i in (0, 2, 1, 3)]


def test_kl_matrix_has_a_dash_where_there_is_no_kl():
    ps = [dist.Normal(0.0, 1.0)]
    ax = plot.kl_matrix(ps, [dist.VonMises(0.0, 1.0)], names=["a"], q_names=["angle"])
    assert "-" in texts(ax).split("\n")


def test_reward_against_kl_names_policies_and_the_optimum():
    ax = plot.reward_against_kl(
        [1.0, 2.0], [0.5, 0.7], labels=["a", "b"], optimum=([0, 1], [0, 1])
    )
    assert {"a", "b", "optimal policies"} <= set(texts(ax).split("\n"))


def test_site_kls_tells_exact_from_sampled(report):
    text = texts(plot.site_kls(report))
    assert {"exact", "exact given other sites", "sampled"} <= set(text.split("\n"))
    assert "error bars: ± 2 standard errors" in text


def test_coefficients_keeps_those_of_the_largest_kl(posterior):
    rows = posterior.to_dicts()
    ax = plot.coefficients(posterior, largest=2)
    largest = sorted(rows, key=lambda row: -row["kl"])[:2]
    names = {label.get_text() for label in ax.get_yticklabels()}
    assert names == {row["coefficient"] for row in largest}
    assert "2 of 4" in ax.get_title("left")


# --- what is refused ----------------------------------------------------------------------------

BATCH, NORMAL = dist.Normal(torch.zeros(2), 1.0), dist.Normal(0.0, 1.0)


class WithoutSampler(dist.Normal):
    def sample(self, *args, **kwargs):
        raise NotImplementedError


POINT, SILENT = dist.Delta(torch.tensor(0.5)), WithoutSampler(0.0, 1.0)


def changed(**changes):
    return SimpleNamespace(**{**vars(HISTORY), **changes})


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: plot.kl_integrand(BATCH, NORMAL), ValueError, r"p \(Normal\) has batch shape"),
        (lambda: plot.kl_integrand(NORMAL, 3.0), TypeError, "q must be a distribution, got float"),
        (lambda: plot.kl_integrand(NORMAL, dist.Poisson(1.0)), ValueError, "discrete"),
        (lambda: plot.kl_integrand(NORMAL, NORMAL, xlim=(1.0, 0.0)), ValueError, "xlim must be"),
        (lambda: plot.kl_integrand(NORMAL, NORMAL, xlim=(1.0, math.inf)), ValueError, "xlim must"),
        (lambda: plot.kl_integrand(NORMAL, dist.VonMises(0.0, 1.0)), NotImplementedError, "no KL"),
        (lambda: plot.kl_integrand(POINT, NORMAL), ValueError, "from 0.5 to 0.5"),
        (lambda: plot.prior_posterior(NORMAL, SILENT), NotImplementedError, "no sampler"),
        (lambda: plot.prior_posterior(BATCH, NORMAL), ValueError, "posterior .* has batch shape"),
        (lambda: plot.convergence(BATCH, BATCH), ValueError, r"batch shape \(2,\)"),
        (lambda: plot.convergence(BATCH, BATCH, num_samples=99), ValueError, "at least 100"),
        (lambda: plot.training(changed(steps=[])), ValueError, "no steps"),
        (lambda: plot.training(changed(kls={})), ValueError, "no site"),
        (lambda: plot.training(changed(elbo=[1.0])), ValueError, "4 steps, but 1 of elbo"),
        (lambda: plot.elbo_terms(changed(elbo=[math.nan] * 4)), ValueError, "not a number"),
        (lambda: plot.kl_matrix([]), ValueError, "at least one p"),
        (lambda: plot.kl_matrix([BATCH]), ValueError, "batch shape"),
        (lambda: plot.kl_matrix([NORMAL], names=["a", "b"]), ValueError, "names: 2 for 1"),
        (lambda: plot.reward_against_kl([1.0], []), ValueError, "1 KLs and 0 rewards"),
        (lambda: plot.reward_against_kl([], []), ValueError, "at least one policy"),
        (lambda: plot.reward_against_kl([1.0], [1.0], labels=[]), ValueError, "0 labels"),
        (lambda: plot.reward_against_kl([], [], optimum=([1], [])), ValueError, "1 KLs and 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
    assert not pyplot.get_fignums()


def test_site_kls_writes_an_infinite_kl(report):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = tuple(replace(row, nats=math.inf) for row in report.sites)
        ax = plot.site_kls(replace(report, sites=rows))
        ax.figure.canvas.draw()
    assert [text.get_text() for text in ax.texts] == ["inf"] * len(ax.get_yticks())


def test_site_kls_needs_a_site(report):
    with pytest.raises(ValueError, match="no site"):
        plot.site_kls(replace(report, sites=()))


def test_coefficients_needs_a_coefficient(posterior):
    with pytest.raises(ValueError, match="largest is 0"):
        plot.coefficients(posterior, largest=0)
