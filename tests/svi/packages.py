"""Steps of a small model by a recording and by a package.

`python -m tests.svi.packages` takes steps by the package in the cache folder, and prints what the
process has imported and whether distributions are still validated.
"""

from __future__ import annotations

import math
import sys

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch.distributions import Distribution

import pyro_kl
from models.problems import Problem
from pyro_kl.svi.aot import AotRunner, block_of
from pyro_kl.svi.fx import FxRunner
from pyro_kl.svi.optimiser import Optimiser
from pyro_kl.svi.random_state import random_state_kept
from pyro_kl.svi.record import levels_of, record
from pyro_kl.svi.set_up import set_up


def small():
    """A regression with two parameters, in the default dtype."""
    x = torch.linspace(-1.0, 1.0, 7)

    def model(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), math.pi * torch.ones(2)).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(w[0] + w[1] * x, 0.5), obs=x)

    def guide(x):
        loc = pyro.param("loc", lambda: torch.zeros(2))
        scale = pyro.param("scale", lambda: torch.ones(2), constraint=constraints.positive)
        pyro.sample("w", dist.Normal(loc, scale).to_event(1))

    return Problem(model, guide, [(x,)], lr=0.05)


def gamma_guide():
    """A guide whose draws are taken by rejection."""

    def model():
        pyro.sample("z", dist.Gamma(2.0, 1.0))

    def guide():
        shape = pyro.param("shape", torch.tensor(2.0), constraint=constraints.positive)
        pyro.sample("z", dist.Gamma(shape, 1.0))

    return Problem(model, guide, [()], lr=0.05)


class Fit:
    """A fit from its start, by one of the runners.

    Args:
        problem: what is fitted.
        steps: of one call of a package, or None for steps by FX.
        schedule: of the learning rate.
    """

    def __init__(self, problem, steps=None, schedule=None):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        self.args = problem.batch(0)
        self.elbo = pyro_kl.TraceKL_ELBO(beta=pyro_kl.LinearWarmup(20))
        self.elbo.loss(problem.model, problem.guide, *self.args)
        with random_state_kept():
            found = set_up(problem.model, problem.guide, self.elbo, self.args, {})
        with random_state_kept():
            self.recording = record(
                problem.model, problem.guide, self.elbo, found.parameters, self.args, {},
                found.methods,
            )  # fmt: skip
        self.fixed = [*self.args, *self.recording.captured]
        self.optimiser = Optimiser(
            torch.optim.Adam, optim_args={"lr": problem.lr}, schedule=schedule
        )
        self.optimiser.add(self.recording.parameters)
        with random_state_kept():
            self.runner = self._runner(steps)

    def _runner(self, steps):
        levels = levels_of(self.elbo, 0)
        if steps is None:
            return FxRunner(self.recording, self.optimiser, levels, self.fixed)
        self.block, self.reason = block_of(self.recording, self.optimiser, steps)
        if self.block is None:
            return None
        return AotRunner(self.block, self.recording, self.optimiser, levels, self.fixed)

    def levels(self, steps):
        """The ELBO's levels at the next steps."""
        first = self.optimiser.steps
        return [levels_of(self.elbo, first + i) for i in range(steps)]

    def take(self, steps):
        """Take so many steps; their losses."""
        losses = []
        while len(losses) < steps:
            losses += self.runner.take(self.levels(steps - len(losses)), self.fixed)
        return losses

    def run(self, steps):
        """Take so many steps; losses, parameters and the optimiser's state after them."""
        losses = torch.tensor(self.take(steps), dtype=torch.float64)
        self.runner.settle()
        moments = [
            cohort.optimizer.state[param]["exp_avg_sq"]
            for cohort in self.optimiser.cohorts
            for param in cohort.params.values()
        ]
        leaves = self.recording.parameters.values()
        return [losses, *(leaf.detach().clone() for leaf in leaves), *moments]


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    fit = Fit(small(), steps=4)
    assert fit.runner.build.package is not None, fit.runner.build.reason
    losses = fit.take(6)
    print(repr(losses))
    print("torch._inductor.compile_fx" in sys.modules)
    settings = {name: value for name, value in pyro.settings.get().items() if "validat" in name}
    print(Distribution._validate_args, settings)
