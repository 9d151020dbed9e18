"""Pictures of a fit and of divergences over a parameter: the data of what is drawn."""

from dataclasses import replace

import matplotlib
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib import pyplot

import pyro_kl
from pyro_kl import plot
from pyro_kl.calibration.calibration import Calibration
from pyro_kl.calibration.uniformity import band

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    pyplot.close("all")


def line(ax, label):
    """The points of a line."""
    found = next(x for x in ax.lines if x.get_label() == label)
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


# --- a diagnosis ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def diagnosis():
    """The guide has 0.8 times the sd of z, and the prior of all else, as the posterior has."""

    def model():
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("s", dist.HalfNormal(1.0))
        pyro.sample("coin", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=torch.tensor([2.0, 0.0]))

    def guide():
        pyro.sample("z", dist.Normal(torch.tensor([1.0, 0.0]), 0.8 * 0.5**0.5).to_event(1))
        pyro.sample("s", dist.HalfNormal(1.0))
        pyro.sample("coin", dist.Bernoulli(0.5))

    pyro.set_rng_seed(0)
    return pyro_kl.diagnose(model, guide, num_samples=2000, max_plate_nesting=0)


def test_weights_tail_draws_the_weights_and_their_fit(diagnosis):
    ax = plot.weights_tail(diagnosis)
    tail, limit = diagnosis.largest_weights, diagnosis.khat_threshold
    weights, shares = ax.lines[-1].get_data()
    count = len(tail.log_weights)
    assert weights == pytest.approx(tail.log_weights.exp().numpy())
    assert shares[[0, -1]] == pytest.approx([(count - 0.5) / 2000, 0.5 / 2000])
    for label, shape in ((f"fitted tail, k-hat {tail.khat:.2f}", tail.khat),
                         (f"k-hat {limit:.2f}, the limit", limit)):  # fmt: skip
        w, share = line(ax, label)
        excess = (w - np.exp(tail.log_cut)) / tail.scale
        assert share == pytest.approx(count / 2000 * (1 + shape * excess) ** (-1 / shape))
    assert f"k-hat {diagnosis.khat:.2f}" in ax.get_title("left")


@pytest.mark.parametrize(
    ("khat", "scale", "says"),
    [
        (0.4, 1.0, "their variance is finite"),
        (0.6, 1.0, "their variance is infinite"),
        (0.8, 1.0, "too heavy a tail"),
        (np.inf, np.nan, "too few draws"),
        (0.0, 1.0, "k-hat 0.00"),
    ],
)
def test_weights_tail_says_what_k_hat_means(diagnosis, khat, scale, says):
    tail = replace(diagnosis.largest_weights, khat=khat, scale=scale)
    ax = plot.weights_tail(replace(diagnosis, largest_weights=tail))
    assert says in ax.get_title("left")


def test_weights_tail_of_equal_weights(diagnosis):
    equal = replace(diagnosis.largest_weights, log_weights=1e-6 * torch.arange(3.0))
    for tail in (equal, replace(equal, log_weights=torch.zeros(0))):
        ax = plot.weights_tail(replace(diagnosis, largest_weights=tail))
        ax.figure.canvas.draw()
        assert "all are nearly equal" in ax.get_title("left")
        assert len(ax.lines) == 1


def test_posterior_sites_draws_prior_guide_and_posterior(diagnosis):
    ax = plot.posterior_sites(diagnosis, "z", 0)
    for label, mean, sd in (("prior", 0, 1), ("guide", 1, 0.566), ("posterior", 1, 0.707)):
        x, y = line(ax, label)
        exact = np.exp(-0.5 * ((x - mean) / sd) ** 2) / sd / np.sqrt(2 * np.pi)
        assert y == pytest.approx(exact, abs=0.15 * exact.max())
    assert ax.get_xlabel() == "z[0]"
    row = diagnosis["z"]
    said = f"guide {row.guide_mean[0]:.3g} ± {row.guide_sd[0]:.2g}, posterior {row.mean[0]:.3g}"
    assert said in ax.get_title("left")


def test_posterior_sites_ends_where_the_support_ends(diagnosis):
    ax = plot.posterior_sites(diagnosis, "s")
    x, y = line(ax, "prior")
    assert 0 < x[0] < 0.2
    assert y[0] == pytest.approx(0.8, abs=0.15)


def test_posterior_sites_of_an_element_that_is_always_the_same(diagnosis):
    """A zero of a Cholesky factor has all of its mass in one bin."""
    row = diagnosis["s"]
    one = torch.zeros(80).index_fill(0, torch.tensor([40]), 1.0)
    bins = replace(row.histograms, prior=one, guide=one, posterior=one)
    ax = plot.posterior_sites(replace(diagnosis, sites=(replace(row, histograms=bins),)), "s")
    ax.figure.canvas.draw()
    assert line(ax, "guide")[1] == [1.0]


def test_posterior_sites_says_what_is_not_known(diagnosis):
    row = diagnosis["s"]
    nan = torch.full_like(row.histograms.prior, torch.nan)
    row = replace(
        row, mean=torch.tensor(torch.nan), histograms=replace(row.histograms, posterior=nan)
    )
    ax = plot.posterior_sites(replace(diagnosis, sites=(row,)), "s")
    assert [x.get_label() for x in ax.lines] == ["prior", "guide", "posterior: not known"]
    assert "posterior" not in ax.get_title("left")


@pytest.mark.parametrize(
    ("site", "index", "kind", "says"),
    [
        ("coin", (), ValueError, "no densities of coin"),
        ("z", (), ValueError, r"z has shape \(2,\)"),
        ("z", 2, ValueError, r"index has to be that of one element, and is 2"),
        ("y", (), KeyError, "no site 'y'"),
    ],
)
def test_posterior_sites_refuses_what_it_cannot_draw(diagnosis, site, index, kind, says):
    with pytest.raises(kind, match=says):
        plot.posterior_sites(diagnosis, site, index)
    assert not pyplot.get_fignums()


# --- divergences ---------------------------------------------------------------------------------


def normals(scale):
    return dist.Normal(0.0, 1.0), dist.Normal(0.0, float(scale))


def test_divergences_draws_each_divergence():
    values = [0.8, 1.5, 2.0]
    ax = plot.divergences(normals, values, name="sd of q")
    for label, divergence in {
        "KL(p || q)": pyro_kl.kl,
        "KL(q || p)": lambda p, q: pyro_kl.kl(q, p),
        "Jensen-Shannon": pyro_kl.jensen_shannon,
        "Renyi 1/2 (p || q)": lambda p, q: pyro_kl.renyi(p, q, 0.5),
        "Renyi 2 (p || q)": lambda p, q: pyro_kl.renyi(p, q, 2.0),
    }.items():
        x, y = line(ax, label)
        assert x.tolist() == values
        assert y == pytest.approx([float(divergence(*normals(v))) for v in values])
    assert ax.get_xlabel() == "sd of q"
    assert len(ax.lines) == 5


def test_divergences_marks_where_one_is_infinite():
    """Renyi's of order 2 is infinite for a sd of q below 1/sqrt(2)."""
    ax = plot.divergences(normals, [0.5, 0.6, 0.8, 1.0])
    _, y = line(ax, "Renyi 2 (p || q)")
    assert np.isnan(y).tolist() == [True, True, False, False]
    assert "infinite" in [text.get_text() for text in ax.texts]
    strip = ax.lines[-1]
    assert strip.get_color() == next(x for x in ax.lines if "Renyi 2" in x.get_label()).get_color()
    heights = np.asarray(strip.get_ydata())
    assert np.isnan(heights).tolist() == [False, False, True, True]
    finite = max(np.nanmax(x.get_ydata()) for x in ax.lines[:5])
    assert heights[0] > finite
    assert all(tick <= 1.04 * finite for tick in ax.get_yticks())


def test_divergences_cuts_the_axis_where_one_is_larger_than_the_rest_by_far():
    ax = plot.divergences(normals, [0.9, 1.0, 1.1, 30.0])
    assert "axis is cut" in ax.get_ylabel()
    assert ax.get_ylim()[1] < 10


def test_divergences_says_what_is_not_known():
    """There is no sum and no integral for Jensen and Shannon's divergence of matrices."""
    eye = torch.eye(2)
    ax = plot.divergences(
        lambda df: (dist.Wishart(df, eye), dist.Wishart(df + 1.0, eye)), [3, 4.0]
    )
    assert "Jensen-Shannon: not known" in [x.get_label() for x in ax.lines]


@pytest.mark.parametrize(
    ("make", "values", "kind", "says"),
    [
        (normals, [1.0], ValueError, "at least two"),
        (lambda v: dist.Normal(v, 1.0), [1.0, 2.0], TypeError, r"make\(1.0\) must return p and q"),
        (lambda v: (v, v, v), [1.0, 2.0], TypeError, "got tuple"),
        (lambda v: (v, v), [1.0, 2.0], TypeError, "distribution"),
        (
            lambda v: (dist.Normal(torch.zeros(2), 1.0), dist.Normal(0.0, v)), [1.0, 2.0],
            ValueError, r"batch shape \(2,\)",
        ),
    ],
)  # fmt: skip
def test_divergences_refuses_what_it_cannot_draw(make, values, kind, says):
    with pytest.raises(kind, match=says):
        plot.divergences(make, values)
    assert not pyplot.get_fignums()


# --- ranks ---------------------------------------------------------------------------------------

RANDOM = np.random.default_rng(0)
NARROW = RANDOM.integers(0, 20, size=(50, 1)) * 19 // 20 // 10 * 19
MANY = RANDOM.integers(0, 20, size=(50, 60))
MANY[:, 59] //= 3


@pytest.fixture(scope="module")
def calibration():
    ranks = [
        {"z": z.tolist(), "many$": many.tolist()} for z, many in zip(NARROW, MANY, strict=True)
    ]
    return Calibration.of({"z": (), "many$": (3, 20)}, ranks, 19)


def test_ranks_draws_the_distribution_function_and_its_band(calibration):
    ax = plot.ranks(calibration, "z")
    x, y = line(ax, "z")
    r = np.arange(20)
    assert x == pytest.approx(r / 19)
    assert y == pytest.approx((r[:, None] >= NARROW.T).mean(1) - (r + 1) / 20)
    low, high = band(50, 19, 0.95)
    edges = [line.get_ydata() for line in ax.lines if len(line.get_ydata()) == 20][:2]
    assert edges[0][:-1] == pytest.approx(low / 50 - (r[:-1] + 1) / 20)
    assert edges[1][:-1] == pytest.approx(high / 50 - (r[:-1] + 1) / 20)
    outside = ((y < edges[0] - 1e-9) | (y > edges[1] + 1e-9)).any()
    assert outside == (calibration["z"].p_value < 0.05)
    assert ax.get_title("left").startswith("Ranks of z: too narrow, p-value")


def test_ranks_draws_the_worst_element_and_some_others(calibration):
    ax = plot.ranks(calibration, "many$")
    labels = [x.get_label() for x in ax.lines]
    assert r"many\$[2,19] (worst)" in labels
    assert "other elements (50 of 59)" in labels
    low, _ = band(50, 19, 1 - 0.05 / 60)
    assert ax.lines[0].get_ydata()[5] == pytest.approx(low[5] / 50 - 6 / 20)
    with pytest.raises(KeyError, match="no site 'x'"):
        plot.ranks(calibration, "x")
