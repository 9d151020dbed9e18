"""calibrate: a correct fit passes, a broken one does not, in processes and from a file."""

import json

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_kl

X = torch.zeros(5)


def model(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 5):
        pyro.sample("x", dist.Normal(z, 2.0), obs=x)


class Conjugate:
    """The posterior of `model`, for the data that its model observes."""

    def __init__(self, width=1.0, shift=0.0):
        self.width, self.shift = width, shift

    def __call__(self, model):
        x = pyro.poutine.trace(model).get_trace(X).nodes["x"]["value"]
        precision = 1 + 5 / 4
        loc, scale = x.sum() / 4 / precision, self.width * precision**-0.5
        return lambda x: pyro.sample("z", dist.Normal(loc + self.shift, scale))


def test_the_posterior_passes():
    found = pyro_kl.calibrate(model, Conjugate(), X, progress=False)
    assert found.calibrated
    assert found["z"].verdict == "calibrated"
    assert max(map(len, str(found).splitlines())) <= 80


@pytest.mark.parametrize(
    ("fit", "verdict"),
    [
        (Conjugate(width=0.5), "too narrow"),
        (Conjugate(width=3.0), "too wide"),
        (Conjugate(shift=0.5), "draws too large"),
    ],
)
def test_a_broken_fit_does_not(fit, verdict):
    found = pyro_kl.calibrate(model, fit, X, progress=False)
    assert not found.calibrated
    assert verdict in found["z"].verdict
    assert "not calibrated" in str(found)


def test_processes_do_not_change_the_ranks():
    options = {"num_simulations": 12, "num_draws": 9, "progress": False}
    one = pyro_kl.calibrate(model, Conjugate(), X, **options)
    two = pyro_kl.calibrate(model, Conjugate(), X, processes=2, **options)
    assert one["z"].ranks == two["z"].ranks


def test_processes_need_fork(monkeypatch):
    monkeypatch.setattr("pyro_kl.calibration.calibrate.get_all_start_methods", lambda: ["spawn"])
    with pytest.raises(ValueError, match="processes=2 needs fork"):
        pyro_kl.calibrate(model, Conjugate(), X, processes=2, progress=False)


def test_a_run_goes_on_where_it_was_stopped(tmp_path):
    path = tmp_path / "ranks.jsonl"
    options = {"num_draws": 9, "progress": False, "path": path}
    whole = pyro_kl.calibrate(model, Conjugate(), X, num_simulations=12, **options)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:5]) + '\n{"simulation": 4, "ra')
    fits = []

    def counted(model):
        fits.append(model)
        return Conjugate()(model)

    again = pyro_kl.calibrate(model, counted, X, num_simulations=12, **options)
    assert again["z"].ranks == whole["z"].ranks
    assert len(fits) == 12 - 4
    with pytest.raises(ValueError, match="has simulations of"):
        pyro_kl.calibrate(model, Conjugate(), X, num_simulations=12, seed=1, **options)
    assert json.loads(lines[0]) == {"seed": 0, "num_draws": 9}


def with_factor(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.factor("f", -z.square())


def without_data(x):
    pyro.sample("z", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (with_factor, {}, "The model has the factor f"),
        (without_data, {}, "The model observes nothing"),
        (model, {"num_simulations": 9}, "num_simulations=9 has to be at least 10"),
    ],
)
def test_what_is_refused(model, options, says):
    with pytest.raises(ValueError, match=says):
        pyro_kl.calibrate(model, Conjugate(), X, progress=False, **options)
