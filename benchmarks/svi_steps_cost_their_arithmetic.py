"""A step of pyro_kl.SVI costs what its arithmetic costs.

    make bench        or  python -m benchmarks.svi_steps_cost_their_arithmetic [--help]

Six models, each fitted in several ways that take turns in one process, NumPyro in another one.
Every fit uses Adam and one thread. Columns:

us a step      CPU time, median over the rounds; "auto" is a whole fit, its compiler included
ratio          to a step with Pyro's TraceMeanField_ELBO in the same round, and the quartiles
first step, s  CPU time until the first step is done, that of the compiler included
again, s       the same in a new process, which imports what it needs and finds the package
pays after     the steps after which the first step has paid for itself, against eager ones
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles
from unittest.mock import patch

import torch

from models.problems import PROBLEMS

from . import numpyro_process
from .svi_fits import BASELINE, EAGER, NUMPYRO, OURS, fits, whole_fit
from .timing import interleaved

AUTO_STEPS = 2_000
COLUMNS = ("", "us a step", "ratio", "quartiles", "first step, s", "again, s", "pays after")


@contextmanager
def empty_cache():
    """A new folder for compiled packages."""
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, PYRO_KL_CACHE=folder):
        yield


def again(name, mode, steps_per_call):
    """CPU seconds of the first call in a process that finds the package in the cache folder."""
    call = f"{whole_fit.__name__}({name!r}, {mode!r}, {steps_per_call}, {steps_per_call})"
    code = f"from {whole_fit.__module__} import *; print({call})"
    command = [sys.executable, "-W", "ignore", "-c", code]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return float(subprocess.check_output(command, env=environment))


@dataclass
class Row:
    """A line of the table; times in seconds, `pays_after` in steps."""

    name: str
    step: float
    ratio: float
    quartiles: tuple[float, float] | None = None
    first: float | None = None
    again: float | None = None
    pays_after: float | None = None

    def cells(self):
        return (
            self.name,
            f"{1e6 * self.step:,.{0 if self.step > 1e-4 else 1}f}",
            f"{self.ratio:.3g}",
            "" if self.quartiles is None else "{:.3g} to {:.3g}".format(*self.quartiles),
            "" if self.first is None else f"{self.first:.2f}",
            "" if self.again is None else f"{self.again:.2f}",
            "" if self.pays_after is None else f"{self.pays_after:,.0f}",
        )


def measured(name, contestants, rounds, turn):
    """The CPU seconds of each first call, and the CPU seconds of a step in each round."""
    firsts, turns = {}, {}
    for row, fit in contestants.items():
        print(f"{name}: the first steps of {row}", file=sys.stderr)
        firsts[row] = fit.first()
        fit.seconds(10)
        steps = 10 * max(1, round(turn / fit.seconds(10) / 10))
        turns[row] = partial(fit.seconds, steps)
    return firsts, interleaved(turns, rounds)


def rows(name, numpyro, rounds, turn):
    """Measure one problem: `rounds` turns of each fit, each of about `turn` seconds."""
    firsts, times = measured(name, fits(name, numpyro), rounds, turn)
    steps = {row: median(some) for row, some in times.items()}
    for row, some in times.items():
        ratios = [a / b for a, b in zip(some, times[BASELINE], strict=True)]
        low, middle, high = quantiles(ratios, n=4)
        line = Row(row, steps[row], middle, (low, high))
        if row in OURS or row in NUMPYRO:
            line.first = firsts[row]
        if row in OURS:
            line.again = again(name, *OURS[row])
        if row in OURS and row != EAGER:
            lost, saved = firsts[row] - firsts[EAGER], steps[EAGER] - steps[row]
            line.pays_after = max(lost, 0.0) / saved if saved > 0 else math.inf
        yield line
    with empty_cache():
        step = whole_fit(name, "auto", 1, AUTO_STEPS) / AUTO_STEPS
    yield Row(f"pyro_kl, auto, {AUTO_STEPS:,} steps in all", step, step / steps[BASELINE])


def print_table(title, lines, markdown):
    cells = [COLUMNS, *(line.cells() for line in lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    first, *others = widths
    form = "  ".join([f"{{:<{first}}}", *(f"{{:>{width}}}" for width in others)])
    rule = ""
    if markdown:
        title, form = f"### {title}\n", f"| {form.replace('  ', ' | ')} |"
        rule = "\n" + form.format("-" * first, *("-" * (width - 1) + ":" for width in others))
    head, *body = (form.format(*line).rstrip() for line in cells)
    print(f"\n{title}", head + rule, *body, sep="\n", flush=True)


def main(argv=None):
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PROBLEMS, default=[*PROBLEMS])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="few short turns: does it run?")
    parser.add_argument("--markdown", action="store_true", help="tables for docs/")
    options = parser.parse_args(argv)
    rounds, turn = (2, 0.01) if options.quick else (options.rounds, 0.1)
    torch.set_num_threads(1)
    if not options.markdown:
        print(__doc__.split("\n\n", 2)[2])
    reason = numpyro_process.reason_for_none()
    if reason:
        print(f"NumPyro's rows are left out: {reason}")
    with warnings.catch_warnings(), empty_cache():
        warnings.filterwarnings("ignore", "The KL of these sites is sampled")
        for name in options.only:
            with ExitStack() as stack:
                numpyro = None
                if not reason:
                    numpyro = stack.enter_context(
                        numpyro_process.numpyro_fit(name, PROBLEMS[name]())
                    )
                lines = [*rows(name, numpyro, rounds, turn)]
            title = f"{name}: {PROBLEMS[name].__doc__.splitlines()[0]}"
            print_table(title, lines, options.markdown)


if __name__ == "__main__":
    main()
