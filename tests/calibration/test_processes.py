"""calibrate in several processes, from a file, stopped and with errors."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import pyro_kl
from pyro_kl.calibration.processes import TaskError, forked

from .test_calibrate import FEW, Conjugate, X, model

ROOT = Path(__file__).resolve().parents[2]


def test_processes_do_not_change_the_ranks():
    one = pyro_kl.calibrate(model, Conjugate(), X, **FEW)
    for processes in (2, 20):
        more = pyro_kl.calibrate(model, Conjugate(), X, processes=processes, **FEW)
        assert one["z"].ranks == more["z"].ranks


def test_processes_need_fork_and_no_cuda(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    with pytest.raises(ValueError, match="CUDA does not survive"):
        pyro_kl.calibrate(model, Conjugate(), X, processes=2, progress=False)
    monkeypatch.setattr("pyro_kl.calibration.calibrate.get_all_start_methods", lambda: ["spawn"])
    with pytest.raises(ValueError, match="processes=2 needs fork"):
        pyro_kl.calibrate(model, Conjugate(), X, processes=2, progress=False)


def test_an_error_in_a_process_says_which_simulation_and_seed():
    def fit(model):
        raise UnicodeDecodeError("utf8", b"", 0, 1, "a fault")

    with pytest.raises(RuntimeError, match=r"Simulation [01] \(seed [56]\) failed.* a fault"):
        pyro_kl.calibrate(model, fit, X, processes=2, seed=5, **FEW)


def test_a_refusal_in_a_process_is_the_same_error():
    with pytest.raises(ValueError, match="fit returned NoneType"):
        pyro_kl.calibrate(model, lambda model: None, X, processes=2, **FEW)


class Unreadable(Exception):
    """Can be pickled, but not read again."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def test_an_error_that_cannot_be_sent_is_told_by_another():
    def task(number):
        raise Unreadable(number, "more")

    with pytest.raises(TaskError) as caught:
        list(forked(task, [3], 1))
    assert str(caught.value.error) == "Unreadable: 3 and more"
    assert "in task" in str(caught.value.error.__cause__)


def test_a_process_that_is_killed_is_told():
    def task(number):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(TaskError) as caught:
        list(forked(task, range(4), 2))
    assert "ended with exit code -9" in str(caught.value.error)


def test_processes_end_when_nobody_asks_for_more():
    steps = forked(lambda number: os.getpid(), range(10), 2)
    _, process = next(steps)
    steps.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_run_goes_on_where_it_was_stopped(tmp_path):
    path = tmp_path / "ranks.jsonl"
    options = {**FEW, "path": path}
    whole = pyro_kl.calibrate(model, Conjugate(), X, **options)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:5]) + '\n{"simulation": 4, "ra')
    fits = []

    def counted(model):
        fits.append(model)
        return Conjugate()(model)

    again = pyro_kl.calibrate(model, counted, X, **options)
    assert again["z"].ranks == whole["z"].ranks
    assert len(fits) == 12 - 4
    assert path.read_text().splitlines() == lines
    with pytest.raises(ValueError, match="is the file of another run"):
        pyro_kl.calibrate(model, Conjugate(), X, seed=1, **options)
    path.write_text("something else")
    with pytest.raises(ValueError, match="it begins with something else"):
        pyro_kl.calibrate(model, Conjugate(), X, **options)
    assert path.read_text() == "something else"


#: Takes long enough to be stopped; each fit uses a pool of threads before and after the fork.
SLOW = """
import sys, time
import pyro, pyro.distributions as dist, torch
import pyro_kl

torch.set_num_threads(2)
torch.ones(2000, 2000).mul(2).sum()

def model():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.0))

def fit(model):
    torch.ones(2000, 2000).mul(2).sum()
    time.sleep(0.02)
    return lambda: pyro.sample("z", dist.Normal(0.0, 1.0))

pyro_kl.calibrate(model, fit, path=sys.argv[1], processes=2, num_draws=3, num_simulations=10**6)
"""


def test_ctrl_c_leaves_a_file_that_resumes(tmp_path):
    path = tmp_path / "ranks.jsonl"
    run = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(path)],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        for _ in range(600):
            if path.exists() and len(path.read_text().splitlines()) > 5:
                break
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGINT)  # of all processes, as a terminal sends it
        _, error = run.communicate(timeout=60)
    finally:
        run.kill()
    assert error.count("Traceback") == 1
    assert error.rstrip().endswith("KeyboardInterrupt")
    with pytest.raises(ProcessLookupError):  # no process is left
        os.killpg(run.pid, 0)
    rows = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    assert len(rows) > 4
    scope = {"sys": None}
    exec(SLOW.split("pyro_kl.calibrate(")[0].replace("import sys, time", "import time"), scope)
    torch.set_num_threads(1)
    options = {"path": path, "num_draws": 3, "num_simulations": 10, "progress": False}
    found = pyro_kl.calibrate(scope["model"], scope["fit"], **options)
    assert found.num_simulations == 10


def test_the_bar_counts_what_was_kept_and_the_time_of_this_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pyro_kl.calibration.calibrate.DELAY", 0.0)
    monkeypatch.setattr("pyro_kl.calibration.calibrate.interval", lambda: 0.0)
    options = {**FEW, "path": tmp_path / "ranks.jsonl"}
    pyro_kl.calibrate(model, Conjugate(), X, **options)
    assert not capsys.readouterr().err
    options |= {"num_simulations": 14, "progress": True}
    pyro_kl.calibrate(model, Conjugate(), X, **options)
    lines = capsys.readouterr().err.splitlines()
    assert "12/14 [00:00" in lines[0]
    assert "14/14 [00:0" in lines[-1]
