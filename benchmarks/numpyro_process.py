"""NumPyro's SVI in a process of its own, which takes its turns when it is asked."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from models import eight_schools

#: Where `make bench` installs NumPyro.
PYTHON = Path(__file__).parents[1] / ".venv-numpyro" / "bin" / "python"

#: What NumPyro's model is given where Pyro's has its data inside.
DATA_INSIDE = {"eight schools": (eight_schools.EFFECT, eight_schools.ERROR)}


def reason_for_none():
    """Why NumPyro cannot be timed here, or ""."""
    if PYTHON.exists():
        return ""
    return "there is no .venv-numpyro; `make bench` makes it where Python is 3.11 or newer"


class NumPyroFit:
    """A fit of one problem, in a running process."""

    def __init__(self, process):
        self._process = process

    def ask(self, what, steps):
        """Have the worker make steps and return what it answers; see numpyro_steps.py."""
        self._process.stdin.write(f"{what} {steps}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


@contextmanager
def numpyro_fit(name, problem):
    """A `NumPyroFit` on the same data; its process ends with the block."""
    columns = [torch.stack(column) for column in zip(*problem.batches, strict=True)]
    columns = columns or [torch.tensor([values]) for values in DATA_INSIDE[name]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        np.savez(path, *(column.numpy() for column in columns))
        command = [PYTHON, "-m", "benchmarks.numpyro_steps", name, path, str(problem.lr)]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        ) as process:
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError(f"NumPyro's process for {name!r} did not start; see above")
            yield NumPyroFit(process)
