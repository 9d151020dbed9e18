"""Does the exact KL lower the variance of the gradient where discrete latents are summed out?

    python -m benchmarks.enumeration_variance [--write]

prints the second table of docs/explanations/elbo_variance.md, or replaces it there.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import SVI, TraceEnum_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.ops.indexing import Vindex

from pyro_kl import TraceEnumKL_ELBO

from .elbo_variance import gradient_noise, main

STAGES = {"start": 0, "midway": 150, "converged": 2000}
PARALLEL = {"enumerate": "parallel"}


def mixture(rows):
    """Three components with unknown weights, locations and scale."""
    data = torch.randn(rows) + torch.tensor([-3.0, 0.0, 3.0])[torch.arange(rows) % 3]

    def model():
        weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
        locs = pyro.sample("locs", dist.Normal(torch.tensor([-2.0, 0.0, 2.0]), 2.0).to_event(1))
        scale = pyro.sample("scale", dist.Gamma(2.0, 2.0))
        with pyro.plate("rows", rows):
            z = pyro.sample("z", dist.Categorical(weights), infer=PARALLEL)
            pyro.sample("x", dist.Normal(locs[z], scale), obs=data)

    return model, AutoNormal(poutine.block(model, hide=["z"]))


def hidden_markov(sequences, steps):
    """Three states with unknown transitions and emissions."""
    states = (torch.arange(sequences * steps) // 4 % 3).reshape(sequences, steps)
    data = torch.randn(sequences, steps) + 2.0 * states

    def model():
        moves = pyro.sample("moves", dist.Dirichlet(torch.eye(3) + 0.5).to_event(1))
        locs = pyro.sample("locs", dist.Normal(torch.tensor([0.0, 2.0, 4.0]), 2.0).to_event(1))
        with pyro.plate("sequences", sequences):
            z = torch.tensor(0)
            for t in pyro.markov(range(steps)):
                z = pyro.sample(f"z_{t}", dist.Categorical(moves[z]), infer=PARALLEL)
                pyro.sample(f"x_{t}", dist.Normal(locs[z], 1.0), obs=data[:, t])

    hidden = [f"z_{t}" for t in range(steps)]
    return model, AutoNormal(poutine.block(model, hide=hidden))


def local_latents(rows):
    """A label and a Normal latent for each row, both in the guide; the label is summed out."""
    data = torch.randn(rows) + torch.tensor([-2.0, 2.0])[torch.arange(rows) % 2]

    def model():
        locs = pyro.param("locs", torch.tensor([-1.0, 1.0]))
        with pyro.plate("rows", rows):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5])))
            u = pyro.sample("u", dist.Normal(locs[z], 1.0))
            pyro.sample("x", dist.Normal(u, 0.5), obs=data)

    def guide():
        probs = pyro.param("probs", torch.full((rows, 2), 0.5), constraint=constraints.simplex)
        loc = pyro.param("loc", torch.zeros(rows, 2))
        scale = pyro.param("scale", torch.ones(rows, 2), constraint=constraints.positive)
        with pyro.plate("rows", rows):
            z = pyro.sample("z", dist.Categorical(probs), infer=PARALLEL)
            at = torch.arange(rows)
            pyro.sample("u", dist.Normal(Vindex(loc)[at, z], Vindex(scale)[at, z]))

    return model, guide


MODELS = {
    "mixture, 15 rows": lambda: mixture(15),
    "mixture, 500 rows": lambda: mixture(500),
    "HMM, 3 sequences of 8": lambda: hidden_markov(3, 8),
    "label and latent for each of 30 rows": lambda: local_latents(30),
}


def rows(draws):
    """Lines of the table."""
    for name, make in MODELS.items():
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        model, guide = make()
        guide()
        trained = 0
        ours, theirs = (Elbo(max_plate_nesting=1) for Elbo in (TraceEnumKL_ELBO, TraceEnum_ELBO))
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), ours)
        for stage, steps in STAGES.items():
            for _ in range(steps - trained):
                svi.step()
            trained = steps
            sampled = gradient_noise(theirs, model, guide, draws)
            exact = gradient_noise(ours, model, guide, draws)
            yield (
                f"| {name} | {stage} | {exact[0] / sampled[0]:.2f} "
                f"| {sampled[1]:.2f} | {exact[1]:.2f} |"
            )


HEADER = """\
| model | stage | gradient variance, exact KL / sampled | sd of loss, TraceEnum_ELBO | sd of loss, TraceEnumKL_ELBO |
|---|---|---|---|---|"""  # noqa: E501


if __name__ == "__main__":
    main(HEADER, rows)
