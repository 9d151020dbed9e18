"""A fit that is killed at random moments and goes on each time ends as if it had not been."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def kill(folder, compile_mode, kills, seed=0):
    """How many of the kills met a fit; its end is compared with that of a fit without them."""
    command = "tests.svi.killed", str(folder), compile_mode, str(kills), str(seed)
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT, env={
            **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
            "PYRO_KL_CACHE": str(folder),
        },
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    whole, killed = torch.load(folder / "whole"), torch.load(folder / "killed")
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    return int(done.stdout)


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="fork and kill need POSIX")


@pytest.mark.parametrize("compile_mode", [pytest.param("none", marks=pytest.mark.sweep), "fx"])
def test_a_killed_fit_goes_on(compile_mode, tmp_path):
    assert kill(tmp_path, compile_mode, kills=5) >= 3


@pytest.mark.sweep
@pytest.mark.parametrize("compile_mode", ["none", "fx", "aot"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_fit_killed_twenty_times_goes_on(compile_mode, seed, tmp_path):
    assert kill(tmp_path, compile_mode, kills=20, seed=seed) >= 10
