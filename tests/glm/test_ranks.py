"""A fit under torchrun is that of one process, whoever computes which rows."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from . import on_ranks

ROOT = Path(__file__).parents[2]
#: How often a rank is killed. Each time torchrun starts all of them again, which takes seconds.
KILLS = int(os.environ.get("PYRO_KL_KILLS", "6"))
FITS = ["full", "few", "sparse"]
SWEEP = pytest.mark.sweep


#: After a restart torch 2.13 connects processes by the addresses of those before, and they wait in
#: vain, unless the store of the addresses is made anew.
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}


def torchrun(ranks, folder, *arguments, options=()):
    """torchrun as a process that has just been started."""
    launch = "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *options
    return subprocess.Popen(
        [sys.executable, "-m", *launch, "-m", "tests.glm.on_ranks", str(folder), *arguments],
        cwd=ROOT, env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def end(process):
    """Wait for torchrun."""
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """What one process finds, by the name of a fit."""
    monkeypatch.setattr(on_ranks.chunks, "CHUNK_BYTES", None)  # put back after `main` has set it
    monkeypatch.setattr(on_ranks.chunks, "LEAST_ROWS", None)
    folder = tmp_path / "alone"
    folder.mkdir()

    def fitted(name, *arguments):
        on_ranks.main(folder, name, *arguments)
        return torch.load(folder / f"{name}.0")

    return fitted


def assert_equal(alone, folder, name, ranks):
    for rank in range(ranks):
        found = torch.load(folder / f"{name}.{rank}")
        assert found.keys() == alone.keys()
        for of in alone:
            # Sums have the same bits; products of vectors depend on where in memory they begin.
            torch.testing.assert_close(found[of], alone[of], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "ranks"),
    [
        pytest.param(name, ranks, marks=[] if (name, ranks) == ("sparse", 2) else SWEEP)
        for name in FITS
        for ranks in (1, 2, 3, 7)
    ],
)
def test_the_posterior_does_not_depend_on_the_number_of_ranks(name, ranks, alone, tmp_path):
    end(torchrun(ranks, tmp_path, name))
    assert_equal(alone(name), tmp_path, name, ranks)


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("other_rows", "The ranks have other fits: first rows .* on rank 0, .* on rank 1"),
        ("other_settings", "The ranks have other fits: prior scale 1.0 on rank 0, 2.0 on rank 1"),
    ],
)
def test_ranks_with_other_rows_or_settings_are_refused(name, said, tmp_path):
    end(torchrun(2, tmp_path, name))
    for rank in range(2):
        assert re.search(said, torch.load(tmp_path / f"{name}.{rank}")["error"])


# --- kills --------------------------------------------------------------------------------------


def wait_for(paths, process):
    """Wait until all files are there; whether torchrun is still at work."""
    latest = time.monotonic() + 120
    while not all(path.exists() for path in paths):
        if process.poll() is not None:
            return False
        assert time.monotonic() < latest, "the ranks do not start"
        time.sleep(0.01)
    return True


@contextmanager
def started(ranks, folder, seconds, options=()):
    """torchrun of a slow fit, which is ended with all of its ranks."""
    for path in folder.glob("process.*"):
        path.unlink()
    process = torchrun(ranks, folder, "killed", str(seconds), options=options)
    try:
        yield process
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        for path in folder.glob("process.*"):
            kill(path)
        process.communicate()


def kill(path):
    """End the process that is named in a file; whether it was there."""
    number = int(path.read_text())
    path.unlink()
    try:
        os.kill(number, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def num_computed(folder):
    """How many chunks were computed, by all processes together."""
    return sum(len(path.read_text().splitlines()) for path in folder.glob("chunks.*"))


def num_passes(folder):
    return len(list((folder / "killed").glob("pass-*")))


@pytest.mark.sweep
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_rank_that_is_killed_costs_a_block(ranks, alone, tmp_path):
    moments, kills, seconds = random.Random(ranks), 0, 0.1
    files = [tmp_path / f"process.{rank}" for rank in range(ranks)]
    options = [f"--max-restarts={KILLS}", "--monitor-interval=0.05"]
    with started(ranks, tmp_path, seconds, options) as process:
        while kills < KILLS and wait_for(files, process):
            time.sleep(moments.uniform(0, 1.0))
            victim = moments.choice(files)
            kills += kill(victim)
            for path in files:
                path.unlink(missing_ok=True)
        end(process)
    assert kills == KILLS
    assert_equal(alone("killed", "0"), tmp_path, "killed", ranks)
    needed = num_passes(tmp_path) * (75 - 2)
    assert needed <= num_computed(tmp_path) <= needed + kills * ranks


@pytest.mark.sweep
def test_another_number_of_ranks_goes_on(alone, tmp_path):
    moments = random.Random(0)
    for ranks in (3, 1, 2, 7, 2):
        files = [tmp_path / f"process.{rank}" for rank in range(ranks)]
        with started(ranks, tmp_path, 0.05) as process:
            assert wait_for(files, process)
            time.sleep(moments.uniform(0.5, 1.5))
            assert process.poll() is None
    before = num_computed(tmp_path)
    end(torchrun(3, tmp_path, "killed", "0"))
    assert_equal(alone("killed", "0"), tmp_path, "killed", 3)
    needed = num_passes(tmp_path) * (75 - 2)
    assert 0 < before < needed
    assert num_computed(tmp_path) <= needed + (3 + 1 + 2 + 7 + 2)
