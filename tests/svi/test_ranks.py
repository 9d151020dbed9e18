"""A fit of several ranks under torchrun: the fit of one process, from rows that are divided."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from . import on_ranks

ROOT = Path(__file__).parents[2]
#: Fits whose draws are the same on all ranks: those of one process, but for rounding.
EQUAL = ["global_size", "uneven", "pyros_elbo", "amortised"]
SCENARIOS = [*EQUAL, "own_draws", "same_seed", "checkpoint", "refused"]


def torchrun(ranks, folder, *names):
    command = "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"
    done = subprocess.run(
        [sys.executable, "-m", *command, "-m", "tests.svi.on_ranks", str(folder), *names],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.sweep)])
def fits(request, tmp_path_factory):
    """Scenario -> what each rank returned; that of one process comes last."""
    folder = tmp_path_factory.mktemp("ranks")
    on_ranks.main(folder, [*EQUAL, "checkpoint"])
    torchrun(request.param, folder, *SCENARIOS)
    return {
        name: [torch.load(file) for rank in range(request.param)
               if (file := folder / f"{name}.{request.param}.{rank}")]
        + [torch.load(file) for file in [folder / f"{name}.1.0"] if file.exists()]
        for name in SCENARIOS
    }  # fmt: skip


def assert_equal(one, other, tolerance=0.0):
    assert one.keys() == other.keys()
    for name in one.keys() - {"own"}:
        torch.testing.assert_close(one[name], other[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", EQUAL)
def test_ranks_with_common_draws_take_the_steps_of_one_process(name, fits):
    *ranks, alone = fits[name]
    for rank in ranks:
        assert_equal(rank, ranks[0])
        assert_equal(rank, alone, tolerance=1e-12)


@pytest.mark.parametrize("name", ["own_draws", "same_seed"])
def test_replicas_stay_identical_with_draws_of_their_own(name, fits):
    first, *others = fits[name]
    for other in others:
        assert_equal(first, other)
        assert not torch.equal(first["own"]["rows"], other["own"]["rows"])
    assert first["losses"].isfinite().all()


def test_a_fit_goes_on_from_a_checkpoint(fits):
    first, *others, alone = fits["checkpoint"]
    for name in ("whole", "resumed"):
        for rank in others:
            assert_equal(first[name], rank[name])
    assert_equal(first["whole"], first["resumed"])
    assert_equal(alone["whole"], alone["resumed"])
    for rank in others:
        assert_equal(first["other"], rank["other"])


REFUSED = {
    "sizes": "plate data is of .* on rank 0 and of .* on rank 1: give it the size of all data",
    "unknown": "sharded names rows; the plates are data",
    "local": "parameters for single rows of data",
    "local vector": r"parameters for single rows of data \(z\)",
    "late": "parameters late were not declared by the first step",
    "shape": r"parameter shape is torch.float32 \(1,\) on rank 0 and .* \(2,\) on rank 1",
}
WARNED = {
    "not sharded": "no plate is larger than its rows",
    "all the same": "each row counts once for each rank",
    "compiled": "compile='fx' is left out",
}


def test_what_is_not_one_fit_is_refused(fits):
    for rank in fits["refused"]:
        assert {name: rank[name] for name in REFUSED}.keys() == REFUSED.keys()
        for name, expected in REFUSED.items():
            with pytest.raises(ValueError, match=expected):
                raise ValueError(rank[name])
        for name, expected in WARNED.items():
            assert [expected in text for text in rank[name]] == [True], rank[name]


def test_all_ranks_stop_when_one_does(fits):
    assert [rank["stopped"] for rank in fits["refused"]] == [3] * len(fits["refused"])


def test_processes_without_a_group_are_told(monkeypatch):
    from pyro_kl.svi import ranks

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("pyro_kl.registry.warnings._warned", set())
    with pytest.warns(UserWarning, match="2 processes, and each of them fits by itself"):
        ranks.warn_if_alone()
