"""Fits that are interrupted and resumed, each made anew with nothing declared yet.

`python -m tests.svi.fits FOLDER` loads FOLDER/<name>.fit of each, takes the steps that are left
and writes losses and parameters to FOLDER/<name>.resumed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import nn

import pyro_kl
from models import eight_schools
from models.problems import PROBLEMS

STEPS, FIRST = 40, 23


def parameters():
    """The unconstrained parameters."""
    return {k: v.detach().clone() for k, v in pyro.get_param_store().named_parameters()}


def run(svi, batches, steps, **options):
    """Take steps; losses, and parameters and buffers after them."""
    result = svi.run(steps, batches=batches, **options)
    buffers = dict(svi.guide.named_buffers()) if isinstance(svi.guide, nn.Module) else {}
    buffers = {name: value.clone() for name, value in buffers.items()}
    return {"losses": result.losses, "parameters": parameters(), "buffers": buffers}


def _schools(guide, **options):
    options = {"optim_args": {"lr": 0.05}, "loss": pyro_kl.TraceKL_ELBO(), **options}
    model = eight_schools.model
    return pyro_kl.SVI(model, guide(model), torch.optim.Adam, **options), None


def _problem(name, **options):
    problem = PROBLEMS[name]()
    elbo = pyro_kl.TraceKL_ELBO(beta=pyro_kl.LinearWarmup(35))
    optim = pyro.optim.Adam({"lr": problem.lr})
    return pyro_kl.SVI(problem.model, problem.guide, optim, elbo, **options), problem.batch


class ModuleGuide(PyroModule):
    """With a constrained parameter, a network's weight and buffers that each step changes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.scale = PyroParam(torch.ones(4), constraint=dist.constraints.positive)
        self.net = PyroModule[nn.Sequential](nn.Linear(2, 4), nn.BatchNorm1d(4))
        self.count = PyroParam(lambda: torch.rand(()))

    def forward(self, x):
        loc = self.net(x).mean(0) * self.count
        pyro.sample("z", dist.Normal(loc, self.scale).to_event(1))


def _module():
    x = torch.arange(12.0).reshape(6, 2) / 10

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        with pyro.plate("data", len(x), subsample_size=3, dim=-1) as rows:
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x[rows].sum(-1))

    optim = pyro.optim.ClippedAdam({"lr": 0.02, "lrd": 0.99})
    return pyro_kl.SVI(model, ModuleGuide(), optim, pyro_kl.TraceKL_ELBO()), lambda step: x


def _discrete(elbo, baseline):
    """A score function with a running baseline, and a start that is drawn."""

    def model():
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.7))

    def guide():
        logit = pyro.param("logit", lambda: torch.randn(()))
        pyro.sample("z", dist.Bernoulli(logits=logit), infer={"baseline": baseline})

    return pyro_kl.SVI(model, guide, torch.optim.SGD, elbo, optim_args={"lr": 0.1}), None


_RUNNING = {"use_decaying_avg_baseline": True}

FITS = {
    "AutoNormal": lambda: _schools(AutoNormal),
    "AutoMultivariateNormal": lambda: _schools(AutoMultivariateNormal),
    "Trace_ELBO": lambda: _schools(AutoNormal, loss=Trace_ELBO(num_particles=2)),
    "vectorised": lambda: _schools(
        AutoNormal, loss=pyro_kl.TraceKL_ELBO(num_particles=3, vectorize_particles=True)
    ),
    "control variate": lambda: _schools(
        AutoNormal, loss=pyro_kl.TraceKL_ELBO(control_variate=True)
    ),
    "schedule": lambda: _schools(AutoNormal, schedule=lambda step: 0.9**step),
    "scheduler": lambda: _schools(
        AutoNormal, schedule=lambda optim: torch.optim.lr_scheduler.CosineAnnealingLR(optim, 40)
    ),
    "clipping": lambda: _schools(AutoNormal, clip_norm=1.0, clip_value=0.3),
    "averaging": lambda: _schools(AutoNormal, average=0.9),
    "pyro.param": lambda: _problem("breast cancer"),
    "pyro.module": lambda: _problem("VAE"),
    "PyroModule": _module,
    "baselines": lambda: _discrete(pyro_kl.TraceKL_ELBO(), _RUNNING),
    "TraceGraph_ELBO": lambda: _discrete(TraceGraph_ELBO(), _RUNNING),
}


FITS |= {
    "fx: AutoNormal": lambda: _schools(AutoNormal, compile="fx"),
    "fx: vectorised": lambda: _schools(
        AutoNormal,
        loss=pyro_kl.TraceKL_ELBO(num_particles=3, vectorize_particles=True),
        compile="fx",
    ),
    "fx: schedule and clipping": lambda: _schools(
        AutoNormal, schedule=lambda step: 0.9**step, clip_norm=1.0, compile="fx"
    ),
    "fx: averaging": lambda: _schools(AutoNormal, average=0.9, compile="fx"),
    "fx: pyro.param": lambda: _problem("breast cancer", compile="fx"),
    "fx: pyro.module": lambda: _problem("VAE", compile="fx"),
}


def main(folder: Path) -> None:
    """Go on with every fit that was saved in a folder."""
    for name, make in FITS.items():
        pyro.clear_param_store()
        svi, batches = make()
        pyro.set_rng_seed(99)  # the checkpoint has the states of the generators
        svi.load(folder / f"{name}.fit")
        torch.save(run(svi, batches, STEPS - FIRST), folder / f"{name}.resumed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
