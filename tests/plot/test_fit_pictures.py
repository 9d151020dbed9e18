"""Pictures of a fit and of divergences over a parameter: the data of what is drawn."""

import matplotlib
import numpy as np
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
    with pytest.raises(KeyError, match="no latent 'x'"):
        plot.ranks(calibration, "x")
