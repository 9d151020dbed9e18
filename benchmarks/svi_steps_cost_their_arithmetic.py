"""A step of pyro_kl.SVI costs what its arithmetic costs.

    make bench        or  python -m benchmarks.svi_steps_cost_their_arithmetic [--help]

Six models, each fitted in several ways that take turns in one process, NumPyro in another one.
Printed are medians over the rounds of process CPU time for a step, and its ratio to a step with
Pyro's `TraceMeanField_ELBO` in the same round. Every fit uses Adam and one thread.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count
from statistics import median, quantiles

import pyro
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

import pyro_kl
from models.problems import PROBLEMS

from . import numpyro_process
from .elbo_as_fast_as_pyros import upstream
from .hand_written_steps import HAND_WRITTEN
from .timing import interleaved, seconds

BASELINE = "Pyro TraceMeanField_ELBO"
EAGER = "pyro_kl, eager"
#: By row: the mode and the steps of one call.
COMPILED = {
    "pyro_kl, fx": ("fx", 1),
}
NUMPYRO = {"NumPyro, jitted step": "step", "NumPyro, jitted loop of svi.run": "run"}
COLUMNS = ("", "us a step", "ratio", "quartiles", "first step, s", "again, s", "pays after")


class Fit:
    """A fit in this process that goes on from turn to turn, with a parameter store of its own.

    Args:
        advance: makes so many steps.
        unit: the steps of one call.
        within: a context to make them in.
    """

    def __init__(self, advance, unit=1, within=nullcontext):
        self._advance, self._unit, self._within = advance, unit, within
        self._store = {"params": {}, "constraints": {}}

    @contextmanager
    def _surroundings(self):
        with pyro.get_param_store().scope(self._store), self._within():
            yield

    def first(self):
        """Wall seconds of the first call, which traces and compiles."""
        pyro.set_rng_seed(0)
        start = time.perf_counter()
        with self._surroundings():
            self._advance(self._unit)
        return time.perf_counter() - start

    def seconds(self, steps):
        """Process CPU seconds of one of so many steps."""
        with self._surroundings():
            self._advance(self._unit)  # memos and caches have what the last turn has displaced
            return seconds(partial(self._advance, steps)) / steps


class OtherProcess:
    """A fit of NumPyro's, with the methods of `Fit`."""

    def __init__(self, fit, what):
        self.seconds = partial(fit.ask, what)

    def first(self):
        start = time.perf_counter()
        self.seconds(10)
        return time.perf_counter() - start


def step_by_step(step, problem):
    """Advance by calls of `step` with the arguments of each step."""
    numbers = count()

    def advance(steps):
        for _ in range(steps):
            step(*problem.batch(next(numbers)))

    return advance


def pyros(problem, elbo):
    optimiser = pyro.optim.Adam({"lr": problem.lr})
    return pyro.infer.SVI(problem.model, problem.guide, optimiser, elbo).step


def ours(problem, mode=None, steps_per_call=1):
    """Advance by pyro_kl.SVI: by single steps, or by `run` if a call takes several."""
    svi = pyro_kl.SVI(
        problem.model,
        problem.guide,
        torch.optim.Adam,
        pyro_kl.TraceKL_ELBO(),
        optim_args={"lr": problem.lr},
        compile=mode,
        steps_per_call=steps_per_call,
    )
    if mode != "auto" and steps_per_call == 1:
        return step_by_step(svi.step, problem)
    if len(problem.batches) > 1:
        return partial(svi.run, batches=problem.batch, progress=False)
    return lambda steps: svi.run(steps, *problem.batch(0), progress=False)


def fits(name, numpyro):
    """By row, the fits of one problem that take turns."""
    make = PROBLEMS[name]
    problem = make()
    found = {
        BASELINE: Fit(
            step_by_step(pyros(problem, TraceMeanField_ELBO()), problem), within=upstream
        )
    }
    problem = make()
    found["Pyro Trace_ELBO"] = Fit(step_by_step(pyros(problem, Trace_ELBO()), problem))
    if name in HAND_WRITTEN:
        problem = make()
        found["written by hand"] = Fit(step_by_step(HAND_WRITTEN[name](problem), problem))
    found[EAGER] = Fit(ours(make()))
    for row, (mode, steps_per_call) in COMPILED.items():
        found[row] = Fit(ours(make(), mode, steps_per_call), steps_per_call)
    if numpyro is not None:
        found |= {row: OtherProcess(numpyro, what) for row, what in NUMPYRO.items()}
    return found


# --- what is measured once --------------------------------------------------------------------


@contextmanager
def empty_cache():
    """A new folder for compiled packages."""
    before = os.environ.get("PYRO_KL_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYRO_KL_CACHE"] = folder
        try:
            yield
        finally:
            del os.environ["PYRO_KL_CACHE"]
            if before is not None:
                os.environ["PYRO_KL_CACHE"] = before


def first_step(name, mode, steps_per_call):
    """Wall seconds from a new `pyro_kl.SVI` to the end of its first call."""
    problem = PROBLEMS[name]()
    start = time.perf_counter()
    Fit(ours(problem, mode, steps_per_call), steps_per_call).first()
    return time.perf_counter() - start


def first_step_of_another_process(name, mode, steps_per_call):
    """`first_step` where the packages of this process are in the cache folder."""
    call = f"{first_step.__name__}({name!r}, {mode!r}, {steps_per_call})"
    code = f"from {__spec__.name} import *; torch.set_num_threads(1); print({call})"
    return float(subprocess.check_output([sys.executable, "-W", "ignore", "-c", code]))


# --- the table --------------------------------------------------------------------------------


@dataclass
class Row:
    """A line of the table; times in seconds."""

    name: str
    step: float
    #: To the baseline: the median, or the quartiles too.
    ratios: tuple[float, ...]
    first: float | None = None
    again: float | None = None
    #: Steps after which the first step has paid for itself, against eager ones.
    pays_after: float | None = None

    def cells(self):
        low, middle, high = self.ratios if len(self.ratios) == 3 else (None, *self.ratios, None)
        return (
            self.name,
            f"{1e6 * self.step:,.{0 if self.step > 1e-4 else 1}f}",
            f"{middle:.3g}",
            "" if low is None else f"{low:.3g} to {high:.3g}",
            "" if self.first is None else f"{self.first:.2f}",
            "" if self.again is None else f"{self.again:.2f}",
            "" if self.pays_after is None else f"{self.pays_after:,.0f}",
        )


def rows(name, numpyro, rounds, turn):
    """Measure one problem: `rounds` turns of each fit, each of about `turn` seconds."""
    contestants = fits(name, numpyro)
    firsts = {row: fit.first() for row, fit in contestants.items()}
    turns = {}
    for row, fit in contestants.items():
        fit.seconds(10)
        steps = 10 * max(1, round(turn / fit.seconds(10) / 10))
        turns[row] = partial(fit.seconds, steps)
    times = interleaved(turns, rounds)
    eager = median(times[EAGER])
    for row, some in times.items():
        step = median(some)
        ratios = [a / b for a, b in zip(some, times[BASELINE], strict=True)]
        line = Row(row, step, tuple(quantiles(ratios, n=4)))
        if row in COMPILED or row in NUMPYRO:
            line.first = firsts[row]
        if row in COMPILED:
            lost, saved = line.first - firsts[EAGER], eager - step
            line.pays_after = max(lost, 0.0) / saved if saved > 0 else math.inf
            if COMPILED[row][0] == "aot":
                line.again = first_step_of_another_process(name, *COMPILED[row])
        yield line


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
