"""A fit that is saved and resumed is the fit that was not interrupted, to the last bit."""

import os
import subprocess
import sys
from pathlib import Path

import pyro
import pytest
import torch

from tests.svi.fits import FIRST, FITS, STEPS, run

ROOT = Path(__file__).parents[2]


def started(name, seed=0):
    pyro.clear_param_store()
    svi, batches = FITS[name]()
    pyro.set_rng_seed(seed)
    return svi, batches


def assert_equal(left, right):
    assert torch.equal(left["losses"], right["losses"])
    assert left["parameters"].keys() == right["parameters"].keys()
    for name, value in left["parameters"].items():
        assert torch.equal(value, right["parameters"][name]), name


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
