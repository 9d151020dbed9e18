"""A fit that is saved and resumed is the fit that was not interrupted, to the last bit."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from torch.optim import lr_scheduler

import pyro_kl
from models import eight_schools
from models.problems import PROBLEMS
from pyro_kl.svi import checkpoint
from tests.svi.fits import FIRST, FITS, STEPS, parameters, run

ROOT = Path(__file__).parents[2]


def started(name, seed=0):
    pyro.clear_param_store()
    svi, batches = FITS[name]()
    pyro.set_rng_seed(seed)
    return svi, batches


def assert_equal(left, right):
    assert torch.equal(left["losses"], right["losses"])
    for part in ("parameters", "buffers"):
        assert left[part].keys() == right[part].keys()
        for name, value in left[part].items():
            assert torch.equal(value, right[part][name]), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The resumed fits: the first steps are taken here, the others by another process."""
    folder = tmp_path_factory.mktemp("fits")
    for name in FITS:
        svi, batches = started(name)
        svi.run(FIRST, batches=batches)
        svi.save(folder / f"{name}.fit")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.svi.fits", str(folder)],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", FITS)
def test_another_process_goes_on_to_the_last_bit(name, folder):
    svi, batches = started(name)
    whole = run(svi, batches, STEPS)
    whole["losses"] = whole["losses"][FIRST:]
    assert_equal(torch.load(folder / f"{name}.resumed"), whole)


@pytest.mark.parametrize("name", FITS)
def test_the_same_process_goes_back_to_the_last_bit(name, tmp_path):
    svi, batches = started(name)
    svi.run(3, batches=batches)
    svi.save(tmp_path / "fit")
    once = run(svi, batches, 4)
    svi.load(tmp_path / "fit")
    assert svi.step_count == 3
    assert_equal(run(svi, batches, 4), once)


def fit(model=eight_schools.model, guide=AutoNormal, **options):
    return pyro_kl.SVI(
        model, guide(model), torch.optim.Adam, pyro_kl.TraceKL_ELBO(), optim_args={"lr": 0.05},
        **options,
    )  # fmt: skip


def test_parameters_are_in_place_when_load_has_the_arguments(tmp_path):
    svi, _ = started("pyro.param")
    args = PROBLEMS["breast cancer"]().batch(0)
    svi.run(3, *args)
    svi.save(tmp_path / "fit")
    saved = parameters()
    svi, _ = started("pyro.param")
    svi.load(tmp_path / "fit", *args)
    torch.testing.assert_close(parameters(), saved, rtol=0, atol=0)


@pytest.mark.parametrize("modes", [(None, "fx"), ("fx", None)])
def test_a_fit_goes_on_in_another_mode(modes, tmp_path):
    first, second = modes
    svi = fit(compile=first)
    svi.run(3, checkpoint=tmp_path / "fit")
    whole = svi.run(4).losses
    pyro.clear_param_store()
    svi = fit(compile=second)
    svi.load(tmp_path / "fit")
    torch.testing.assert_close(svi.run(4).losses, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", [None, "fx"])
def test_single_steps_are_left_behind(mode, tmp_path):
    """A compiled step keeps the optimiser's state to itself for a while."""
    svi = fit(compile=mode, average=0.9)
    svi.run(3)
    svi.save(tmp_path / "fit")
    losses = [svi.step() for _ in range(3)]
    svi.use_average()
    averages = parameters()
    svi.load(tmp_path / "fit")
    assert [svi.step() for _ in range(3)] == losses
    svi.use_average()
    torch.testing.assert_close(parameters(), averages, rtol=0, atol=0)


def test_evaluate_loss_sets_up_too(tmp_path):
    svi = fit()
    svi.run(3)
    svi.save(tmp_path / "fit")
    loss, saved = svi.evaluate_loss(), parameters()
    pyro.clear_param_store()
    svi = fit()
    svi.load(tmp_path / "fit")
    assert svi.evaluate_loss() == loss
    torch.testing.assert_close(parameters(), saved, rtol=0, atol=0)


def test_a_checkpoint_that_is_loaded_and_saved_is_whole(tmp_path):
    svi = fit(average="polyak")
    svi.run(3)
    svi.save(tmp_path / "fit")
    pyro.clear_param_store()
    svi = fit(average="polyak")
    svi.load(tmp_path / "fit")
    svi.save(tmp_path / "again")
    first, again = (torch.load(tmp_path / name) for name in ("fit", "again"))
    for part in first.keys() - {"parameters"}:
        assert str(first[part]) == str(again[part])
    assert str(sorted(first["parameters"].items())) == str(sorted(again["parameters"].items()))


def test_averages_are_shown_again_after_loading(tmp_path):
    svi = fit(average="polyak")
    svi.run(5)
    shown = parameters()
    svi.save(tmp_path / "fit")
    pyro.clear_param_store()
    svi = fit(average="polyak")
    svi.load(tmp_path / "fit")
    svi.evaluate_loss()
    torch.testing.assert_close(parameters(), shown, rtol=0, atol=0)


def test_a_run_of_no_steps_puts_a_checkpoint_in_its_place(tmp_path):
    svi = fit()
    svi.run(3, checkpoint=tmp_path / "fit")
    saved = parameters()
    pyro.clear_param_store()
    svi = fit()
    svi.load(tmp_path / "fit")
    assert svi.run(-1).step_count == 3
    torch.testing.assert_close(parameters(), saved, rtol=0, atol=0)


def test_run_writes_checkpoints(tmp_path):
    path, seen = tmp_path / "fit", []

    def callback(step, loss, report):
        seen.append(torch.load(path)["step_count"] if path.exists() else 0)

    svi = fit()
    svi.run(7, checkpoint=path, every=3, callbacks=[callback])
    assert seen == [0, 0, 0, 3, 3, 3, 6]
    assert torch.load(path)["step_count"] == 7
    assert [p.name for p in tmp_path.iterdir()] == ["fit"]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "fit"
    svi = fit()
    svi.run(2, checkpoint=path)

    def failing(state, file):
        file.write(b"half of it")
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint.torch, "save", failing)
    with pytest.raises(OSError, match="no space left"):
        svi.run(2, checkpoint=path)
    assert checkpoint.read(path)["step_count"] == 2
    monkeypatch.undo()
    svi.run(2, checkpoint=path)
    assert checkpoint.read(path)["step_count"] == 6
    assert [p.name for p in tmp_path.iterdir()] == ["fit"]


def test_a_file_from_elsewhere(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "run",))

    contents = [Evil(), {"kind": "another"}, torch.ones(2)]
    for content in contents:
        torch.save(content, tmp_path / "fit")
        with pytest.raises(ValueError, match=r"is no checkpoint of pyro_kl\.SVI"):
            fit().load(tmp_path / "fit")
    (tmp_path / "fit").write_bytes(b"half of it")
    with pytest.raises(ValueError, match=r"is no checkpoint of pyro_kl\.SVI"):
        fit().load(tmp_path / "fit")
    assert not (tmp_path / "run").exists()
    checkpoint.write(tmp_path / "fit", {"format": 99})
    with pytest.raises(ValueError, match="has format 99"):
        fit().load(tmp_path / "fit")
    with pytest.raises(FileNotFoundError):
        fit().load(tmp_path / "none")


SCHEDULERS = {
    "MultiStepLR": lambda optim: lr_scheduler.MultiStepLR(optim, [2, 3], 0.5),
    "OneCycleLR": lambda optim: lr_scheduler.OneCycleLR(optim, 0.1, 20),
    "CyclicLR": lambda optim: lr_scheduler.CyclicLR(
        optim, 0.01, 0.1, step_size_up=3, cycle_momentum=False
    ),
    "SequentialLR": lambda optim: lr_scheduler.SequentialLR(
        optim, [lr_scheduler.ConstantLR(optim), lr_scheduler.ExponentialLR(optim, 0.9)], [3]
    ),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "LinearWarmup": pyro_kl.LinearWarmup(4, start=0.1),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter")  # torch 2.8 warns of its own call
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_goes_on(name, tmp_path):
    schedule = SCHEDULERS[name]
    svi = fit(schedule=schedule)
    svi.run(3, checkpoint=tmp_path / "fit")
    whole = svi.run(4).losses
    pyro.clear_param_store()
    svi = fit(schedule=schedule)
    svi.load(tmp_path / "fit")
    assert torch.equal(svi.run(4).losses, whole)


def test_a_scheduler_that_the_user_steps_goes_on(tmp_path):
    def made():
        pyro.clear_param_store()
        scheduler = pyro.optim.ExponentialLR(
            {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}, "gamma": 0.5}
        )
        model = eight_schools.model
        return pyro_kl.SVI(model, AutoNormal(model), scheduler, pyro_kl.TraceKL_ELBO()), scheduler

    def epochs(svi, scheduler):
        for _ in range(2):
            svi.run(2)
            scheduler.step()

    svi, scheduler = made()
    epochs(svi, scheduler)
    svi.save(tmp_path / "fit")
    epochs(svi, scheduler)
    whole = parameters()
    svi, scheduler = made()
    svi.load(tmp_path / "fit")
    epochs(svi, scheduler)
    torch.testing.assert_close(parameters(), whole, rtol=0, atol=0)


def test_parameters_that_are_local_to_modules_are_refused(tmp_path):
    with pyro.settings.context(module_local_params=True):
        svi = pyro_kl.SVI(
            eight_schools.model,
            AutoNormal(eight_schools.model),
            pyro.optim.Adam({"lr": 0.01}),
            pyro_kl.TraceKL_ELBO(),
        )
        svi.run(2)
        with pytest.raises(RuntimeError, match="module_local_params=True keeps them in their"):
            svi.save(tmp_path / "fit")


def test_numbers_of_numpy_are_written_as_numbers(tmp_path):
    state = {"format": 1, "lr": np.float64(0.1), "steps": [np.int64(3)], "on": (True, None)}
    checkpoint.write(tmp_path / "fit", state)
    assert checkpoint.read(tmp_path / "fit") == {
        "kind": "pyro_kl.SVI", "format": 1, "lr": 0.1, "steps": [3], "on": (True, None)
    }  # fmt: skip


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    state = {"optimiser": {"cohorts": [{"momentum": torch.ones(1), "rates": Path()}]}}
    with pytest.raises(
        TypeError, match=r"\['optimiser'\]\['cohorts'\]\[0\]\['rates'\], .* PosixPath"
    ):
        checkpoint.write(tmp_path / "fit", state)
    assert not (tmp_path / "fit").exists()


def scaled(shape, constraint, dtype=torch.float32):
    def guide(*args):
        value = torch.ones(shape, dtype=dtype)
        scale = pyro.param("scale", value, constraint=constraint).sum().float()
        pyro.sample("z", dist.Normal(0.0, scale))

    return lambda model: guide


def one_site():
    pyro.sample("z", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize(
    ("other", "there"),
    [
        (scaled((3,), constraints.positive), r"float32 of shape \(3,\) under GreaterThan"),
        (scaled((2,), constraints.softplus_positive), r"\(2,\) under SoftplusPositive"),
        (scaled((2,), constraints.positive, torch.float64), "float64 of shape"),
    ],
)
@pytest.mark.parametrize("is_declared", [False, True])
def test_a_parameter_of_another_kind_is_refused(other, there, is_declared, tmp_path):
    svi = fit(one_site, scaled((2,), constraints.positive))
    svi.run(2)
    svi.save(tmp_path / "fit")
    pyro.clear_param_store()
    svi = fit(one_site, other)
    if is_declared:
        svi.step()
    load = svi.load if is_declared else lambda path: (svi.load(path), svi.step())
    with pytest.raises(ValueError, match=f"The parameter scale is .*{there}.* in the checkpoint"):
        load(tmp_path / "fit")


def test_another_guide_is_refused(tmp_path):
    svi = fit()
    svi.run(2)
    svi.save(tmp_path / "fit")
    pyro.clear_param_store()
    svi = fit(guide=AutoDiagonalNormal)
    svi.load(tmp_path / "fit")
    with pytest.raises(ValueError, match=r"no value for AutoDiagonalNormal.loc.*AutoNormal.locs"):
        svi.step()


def test_a_parameter_that_is_declared_later_gets_its_value_then(tmp_path):
    def late_guide(model):
        def guide(late):
            loc = pyro.param("loc", lambda: torch.randn(()))
            if late:
                loc = loc + pyro.param("late", lambda: torch.randn(()))
            pyro.sample("z", dist.Normal(loc, 1.0))

        return guide

    def model(late):
        z = pyro.sample("z", dist.Normal(3.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    svi = fit(model, late_guide)
    batches = [True, False, False, False, True, True]
    svi.run(2, batches=batches[:2])
    svi.save(tmp_path / "fit")
    whole = [svi.step(late) for late in batches[2:]], parameters()
    pyro.clear_param_store()
    svi = fit(model, late_guide)
    svi.load(tmp_path / "fit")
    with pytest.warns(UserWarning, match="for late, which the last step did not declare") as told:
        resumed = [svi.step(late) for late in batches[2:]], parameters()
    assert len(told) == 1
    assert resumed[0] == whole[0]
    torch.testing.assert_close(resumed[1], whole[1], rtol=0, atol=0)


def test_python_and_numpy_go_on_too(tmp_path):
    svi = fit()
    svi.run(2)
    svi.save(tmp_path / "fit")

    def draw():
        return random.random(), np.random.random(), float(torch.rand(()))  # noqa: NPY002

    drawn = draw()
    svi.load(tmp_path / "fit")
    assert draw() == drawn
