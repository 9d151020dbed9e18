"""A Gaussian posterior of a logistic regression costs what scikit-learn's point estimate costs.

    python -m benchmarks.glm_costs_a_point_estimate [--shapes small large memory]

Both fit the same data in the same dtype, in turns, with one thread. Columns:

ours, theirs   CPU time of `fit`, median: pyro_kl.glm.LogisticRegression with a full covariance,
               and scikit-learn's with solver="newton-cholesky"
gap            nats between the ELBO of our result, computed in float64, and its optimum, which is
               that of a fit with tol=1e-9
passes         over all rows, besides those for gradients alone
memory         the largest resident memory in `fit` beyond the data, as a part of the data, each
               in a process of its own
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression as PointEstimate

from pyro_kl.glm import LogisticRegression
from pyro_kl.glm.optimum.objective import Objective
from pyro_kl.glm.passes.rows import ArrayRows

from .timing import interleaved, seconds

SHAPES = {
    "small": [
        (569, 30, "float64", 41),
        (100_000, 100, "float64", 7),
        (100_000, 100, "float32", 7),
    ],
    "large": [
        (1_000_000, 50, "float32", 5),
        (11_000_000, 28, "float32", 3),
        (250_000, 2_000, "float32", 1),
    ],
}
MEMORY_SHAPE = (11_000_000, 28, "float32")


def breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    """Standardised."""
    data = load_breast_cancer()
    return (data.data - data.data.mean(0)) / data.data.std(0), data.target


def synthetic(num_rows: int, num_features: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Normal features; coefficients such that the logits have a standard deviation of 2."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((num_rows, num_features), dtype=dtype)
    logits = x @ (2.0 * rng.standard_normal(num_features) / num_features**0.5).astype(dtype) + 0.3
    return x, rng.random(num_rows) < 1.0 / (1.0 + np.exp(-logits))


def exact_elbo(model: LogisticRegression, x: np.ndarray, y: np.ndarray) -> float:
    """The ELBO of a result, in float64, by one pass in blocks of rows."""
    loc = torch.from_numpy(model.loc_)
    likelihood = 0.0
    for start in range(0, len(x), 50_000):
        part = slice(start, start + 50_000)
        rows = ArrayRows(torch.from_numpy(x[part]).double(), torch.from_numpy(y[part]).double())
        point = Objective(rows, model.likelihood, model.prior_).at(loc, model.covariance_)
        likelihood += point.expected_log_likelihood
    return likelihood - point.kl


def row(num_rows: int, num_features: int, dtype: str, rounds: int) -> str:
    x, y = breast_cancer() if num_rows == 569 else synthetic(num_rows, num_features, dtype)
    model, point_estimate = LogisticRegression(), PointEstimate(solver="newton-cholesky")
    fits = {
        "ours": partial(seconds, partial(model.fit, x, y)),
        "theirs": partial(seconds, partial(point_estimate.fit, x, y)),
    }
    times = interleaved(fits, rounds)
    ratio = median(a / b for a, b in zip(times["ours"], times["theirs"], strict=True))
    tight = LogisticRegression(tol=1e-9).fit(x, y)
    gap = exact_elbo(tight, x, y) - exact_elbo(model, x, y)
    ours, theirs = (f"{1e3 * median(times[name]):9.1f} ms" for name in fits)
    shape = f"{num_rows:>10,} x {num_features:<5,} {dtype}"
    return f"{shape}  {ours}  {theirs}  {ratio:5.2f}  {gap:8.1e}  {model.n_iter_:6d}"


def memory_of(which: str) -> str:
    """The largest resident memory that a fit adds, as a part of the data."""
    x, y = synthetic(*MEMORY_SHAPE)
    model = LogisticRegression() if which == "ours" else PointEstimate(solver="newton-cholesky")
    model.fit(x[:5_000], y[:5_000])  # what is imported once is not counted
    Path("/proc/self/clear_refs").write_text("5")  # the largest memory is counted from here
    before = _memory("VmRSS")
    model.fit(x, y)
    return f"{which:<7} {(_memory('VmHWM') - before) / x.nbytes:.3f} of {x.nbytes / 1e9:.2f} GB"


def _memory(name: str) -> int:
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if name in x)
    return 1024 * int(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", choices=[*SHAPES, "memory"], default=["small"])
    parser.add_argument("--memory-of", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory_of:
        print(memory_of(arguments.memory_of))
        return
    print(f"{'shape and dtype':>28}  {'ours':>12}  {'theirs':>12}  ratio  {'gap':>8}  passes")
    for name in arguments.shapes:
        for shape in SHAPES.get(name, ()):
            print(row(*shape), flush=True)
    if "memory" in arguments.shapes:
        for which in ("ours", "theirs"):
            command = [sys.executable, "-m", __spec__.name, "--memory-of", which]
            subprocess.run(command, check=True, env=os.environ)


if __name__ == "__main__":
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        if os.environ.get(variable) != "1":
            sys.exit(f"set {variable}=1: one thread each")
    main()
