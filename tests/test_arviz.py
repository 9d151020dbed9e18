"""A fit as ArviZ's data: groups, dimensions, values; and ArviZ's functions take it."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoNormal, AutoNormalMessenger

import pyro_kl
from models import eight_schools
from pyro_kl.arviz import to_arviz

# ArviZ 0.23 warns of its 1.0 when it is imported
pytestmark = pytest.mark.filterwarnings("ignore:\\s*ArviZ is undergoing:FutureWarning")
az = None


@pytest.fixture(autouse=True)
def _arviz():
    global az
    az = pytest.importorskip("arviz")


X = torch.tensor([1.0, 2.0, 4.0])


def model(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    pyro.deterministic("twice", 2 * mean)
    slopes = pyro.sample("slopes", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pyro.factor("nothing", torch.tensor(0.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mean + slopes.sum(), 1.0), obs=x)


def guide(x):
    mean = pyro.sample("mean", dist.Normal(2.0, 0.5))
    pyro.sample("slopes", dist.Normal(mean * torch.ones(2), 0.1).to_event(1))


def test_groups_and_dimensions():
    data = to_arviz(model, guide, X, num_samples=7, coords={"rows": ["a", "b", "c"]})
    for group in ("posterior", "prior"):
        assert set(data[group].data_vars) == {"mean", "twice", "slopes"}
    for group in ("posterior_predictive", "prior_predictive", "log_likelihood"):
        assert list(data[group].data_vars) == ["x"]
        assert data[group]["x"].dims == ("chain", "draw", "rows")
        assert data[group]["x"].shape == (1, 7, 3)
    assert data["posterior"]["slopes"].dims == ("chain", "draw", "slopes_dim_0")
    assert data["observed_data"]["x"].values.tolist() == X.tolist()
    assert data["observed_data"]["rows"].values.tolist() == ["a", "b", "c"]
    named = to_arviz(model, guide, X, num_samples=2, dims={"slopes": ["slope"]})
    assert named["posterior"]["slopes"].dims == ("chain", "draw", "slope")


def test_one_draw_is_the_same_in_all_groups():
    draws = to_arviz(model, guide, X, num_samples=5)
    mean, slopes = (
        torch.tensor(draws["posterior"][name].values[0]) for name in ("mean", "slopes")
    )
    assert draws["posterior"]["twice"].values[0] == pytest.approx(2 * mean)
    expected = dist.Normal((mean + slopes.sum(-1))[:, None], 1.0).log_prob(X)
    assert draws["log_likelihood"]["x"].values[0] == pytest.approx(expected.numpy(), rel=1e-5)


def test_the_draws_are_of_guide_and_model():
    data = to_arviz(model, guide, X, num_samples=2000)
    for group, name, loc, scale in (
        ("posterior", "mean", 2.0, 0.5),
        ("posterior_predictive", "x", 6.0, (1.5**2 + 2 * 0.1**2 + 1) ** 0.5),
        ("prior", "mean", 0.0, 10.0),
        ("prior_predictive", "x", 0.0, 103**0.5),
    ):
        values = data[group][name].values[0].reshape(2000, -1)[:, 0]
        assert values.mean() == pytest.approx(loc, abs=5 * scale / 2000**0.5)
        assert values.std() == pytest.approx(scale, rel=5 / 4000**0.5)


def test_the_report_is_a_group():
    data = to_arviz(model, guide, X, num_samples=50)
    report = pyro_kl.TraceKL_ELBO().evaluate(model, guide, X, num_particles=50)
    stored = data["kl_report"]
    assert stored["site"].values.tolist() == [row.site for row in report]
    assert float(stored["nats"].sel(site="mean")) == pytest.approx(report["mean"].nats)
    assert stored["method"].sel(site="slopes").item() == "closed form"
    assert stored.attrs["num_particles"] == 50
    assert stored.attrs["kl"] == pytest.approx(
        float(stored["nats"].sel(site=["mean", "slopes"]).sum())
    )


def test_functions_of_arviz_take_it():
    guide = AutoNormal(eight_schools.model)
    data = to_arviz(eight_schools.model, guide, num_samples=100)
    assert list(az.summary(data).index) == ["mu", "tau", *(f"theta[{i}]" for i in range(8))]
    assert az.loo(data).n_data_points == 8


def test_a_prior_that_cannot_be_drawn_is_left_out():
    def improper():
        flat = dist.constraints.real
        z = pyro.sample("z", dist.ImproperUniform(flat, (), ()))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    guide = AutoDelta(improper, init_loc_fn=lambda site: torch.tensor(0.5))
    with pytest.warns(UserWarning, match="prior and prior_predictive are left out") as told:
        data = to_arviz(improper, guide, num_samples=3)
    assert not any("Trace Shapes" in str(warning.message) for warning in told)
    names = data.groups() if callable(data.groups) else data.groups  # ArviZ 0.x, 1.x
    groups = {str(name).strip("/") for name in names}
    assert "posterior_predictive" in groups
    assert not {"prior", "prior_predictive"} & groups


def test_a_subsample_is_refused():
    def model():
        with pyro.plate("rows", 10, subsample_size=2):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="'rows' draws 2 of 10 rows"):
        to_arviz(model, model, num_samples=1)


def test_without_arviz_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(pyro_kl.arviz, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'pyro-kl\[arviz\]'"):
        to_arviz(model, guide, X)


def test_masked_observations_add_nothing():
    seen = torch.tensor([True, False, True])

    def masked(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
        with pyro.plate("draw", len(x)), pyro.poutine.mask(mask=seen):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    # a plate has a name that ArviZ has for itself
    data = to_arviz(masked, AutoNormal(masked), X, num_samples=3)
    assert data["log_likelihood"]["x"].dims == ("chain", "draw", "x_dim_0")
    found = torch.tensor(data["log_likelihood"]["x"].values[0])
    mean = torch.tensor(data["posterior"]["mean"].values[0])
    want = dist.Normal(mean[:, None], 1.0).log_prob(X).where(seen, 0.0)
    torch.testing.assert_close(found, want)


def test_no_draws_are_refused():
    with pytest.raises(ValueError, match="num_samples=0 has to be at least 1"):
        to_arviz(model, guide, X, num_samples=0)


PARALLEL = {"enumerate": "parallel"}


def mixture(x, mark=PARALLEL):
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 5.0).to_event(1))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.ones(2)), infer=mark)
        pyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


def mixture_guide(x, mark=None):
    pyro.sample("loc", dist.Normal(torch.tensor([-9.0, 9.0]), 0.2).to_event(1))


def test_a_site_that_is_summed_out():
    x = torch.tensor([-8.0, -9.0, 10.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        data = to_arviz(mixture, mixture_guide, x, num_samples=20)
    assert (data["posterior"]["z"].values == [0, 0, 1]).all()
    assert data["posterior"]["z"].dims == ("chain", "draw", "rows")
    assert 0.2 < data["prior"]["z"].values.mean() < 0.8
    assert (data["posterior_predictive"]["x"].values[..., 2] > 0).all()
    loc = torch.tensor(data["posterior"]["loc"].values[0])
    halves = dist.Categorical(torch.ones(2))
    expected = dist.MixtureSameFamily(halves, dist.Normal(loc[:, None], 1.0)).log_prob(x)
    assert data["log_likelihood"]["x"].values[0] == pytest.approx(expected.numpy(), rel=1e-4)
    assert "given" not in data["log_likelihood"]["x"].attrs
    assert data["kl_report"]["method"].sel(site="z").item() == "summed out"
    assert data["kl_report"].attrs["elbo"] == pytest.approx(
        data["kl_report"].attrs["log_likelihood"] - data["kl_report"].attrs["kl"]
    )


def test_a_site_that_the_guide_enumerates():
    def guide(x, mark):
        mixture_guide(x)
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Categorical(torch.tensor([0.0, 1.0])), infer=PARALLEL)

    x = torch.tensor([9.0, 10.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        data = to_arviz(mixture, guide, x, {}, num_samples=5)
    assert (data["posterior"]["z"].values == 1).all()


def test_observations_that_share_a_sum_are_given_its_sites():
    def chain(x):
        s = 0
        for t in pyro.markov(range(2)):
            s = pyro.sample(f"s_{t}", dist.Bernoulli(0.3 + 0.4 * s), infer=PARALLEL)
            pyro.sample(f"x_{t}", dist.Normal(s, 1.0), obs=x[t])

    x = torch.tensor([0.0, 1.0])
    with pytest.warns(UserWarning, match="x_0, x_1 is that given the drawn values of s_0, s_1"):
        data = to_arviz(chain, lambda x: None, x, num_samples=20)
    found = data["log_likelihood"]["x_1"]
    s = torch.tensor(data["posterior"]["s_1"].values[0])
    assert found.values[0] == pytest.approx(dist.Normal(s, 1.0).log_prob(x[1]).numpy())
    assert found.attrs["given"] == "s_0, s_1"


def test_a_guide_that_cannot_enumerate_is_refused():
    guide = AutoNormalMessenger(pyro.poutine.block(mixture, hide=["z"]))
    with pytest.raises(NotImplementedError, match="z: marked for enumeration, but not summed out"):
        to_arviz(mixture, guide, X, num_samples=2)
