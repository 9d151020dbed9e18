"""The ways to fit a problem of models/problems.py that are timed against one another."""

from __future__ import annotations

import gc
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import count

import pyro
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

import pyro_kl
from models.problems import PROBLEMS

from .elbo_as_fast_as_pyros import upstream
from .hand_written_steps import HAND_WRITTEN
from .timing import seconds, seconds_in_all

BASELINE = "Pyro TraceMeanField_ELBO"
EAGER = "pyro_kl, eager"
#: By row: the mode and the steps of one call.
OURS = {
    EAGER: (None, 1),
    "pyro_kl, fx": ("fx", 1),
    "pyro_kl, aot": ("aot", 1),
    "pyro_kl, aot, 10 steps a call": ("aot", 10),
}
NUMPYRO = {"NumPyro, jitted step": "step", "NumPyro, jitted loop of svi.run": "run"}


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
        """CPU seconds of the first call, which records and compiles."""
        pyro.set_rng_seed(0)
        with self._surroundings():
            return seconds_in_all(partial(self._advance, self._unit))

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
        return 10 * self.seconds(10)


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


def ours(problem, mode, steps_per_call):
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
    """By row, the fits of one problem that take turns; `numpyro` is a NumPyroFit or None."""
    make = PROBLEMS[name]

    def stepping(step_of, within=nullcontext):
        problem = make()
        return Fit(step_by_step(step_of(problem), problem), within=within)

    found = {
        BASELINE: stepping(partial(pyros, elbo=TraceMeanField_ELBO()), within=upstream),
        "Pyro Trace_ELBO": stepping(partial(pyros, elbo=Trace_ELBO())),
    }
    if name in HAND_WRITTEN:
        found["written by hand"] = stepping(HAND_WRITTEN[name])
    for row, (mode, steps_per_call) in OURS.items():
        found[row] = Fit(ours(make(), mode, steps_per_call), steps_per_call)
    if numpyro is not None:
        found |= {row: OtherProcess(numpyro, what) for row, what in NUMPYRO.items()}
    return found


def whole_fit(name, mode, steps_per_call, steps):
    """CPU seconds of a new `pyro_kl.SVI` that takes some steps and is dropped."""
    problem = PROBLEMS[name]()

    def fit():
        Fit(ours(problem, mode, steps_per_call), steps).first()
        gc.collect()  # a build that still runs is ended, and its time is counted

    return seconds_in_all(fit)
