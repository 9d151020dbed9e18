"""How noisy is the gradient through draws without reparametrisation, and what does a step cost?

    python -m benchmarks.score_function_variance [--write]

prints the third table of docs/explanations/elbo_variance.md, or replaces it there.
"""

from __future__ import annotations

from functools import partial
from statistics import median

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.testing.fakes import NonreparameterizedBeta
from pyro.infer import Trace_ELBO, TraceGraph_ELBO

from pyro_kl import TraceKL_ELBO

from .elbo_variance import gradient_noise, main
from .timing import interleaved, seconds

AVERAGE = {"baseline": {"use_decaying_avg_baseline": True}}


def coin(infer):
    """The coin of Pyro's tutorial on baselines: ten flips, and a guide without rsample."""
    flips = torch.tensor([1.0] * 6 + [0.0] * 4)

    def model():
        fairness = pyro.sample("fairness", dist.Beta(10.0, 10.0))
        with pyro.plate("flips", len(flips)):
            pyro.sample("flip", dist.Bernoulli(fairness), obs=flips)

    def guide():
        a = pyro.param("a", torch.tensor(2.7), constraint=constraints.positive)
        b = pyro.param("b", torch.tensor(4.9), constraint=constraints.positive)
        pyro.sample("fairness", NonreparameterizedBeta(a, b), infer=infer)

    return model, guide


def independent(infer, sites=5):
    """Sites in a loop of Python, each with its own datum."""

    def model():
        for i in range(sites):
            z = pyro.sample(f"z_{i}", dist.Bernoulli(0.3))
            pyro.sample(f"x_{i}", dist.Normal(2 * z, 1.0), obs=torch.tensor(3.0 + i))

    def guide():
        for i in range(sites):
            probs = pyro.param(f"probs_{i}", torch.tensor(0.4))
            pyro.sample(f"z_{i}", dist.Bernoulli(probs), infer=infer)

    return model, guide


def chain(infer, sites=5):
    """Sites that each depend on the one before, in model and guide."""

    def model():
        z = torch.tensor(0.0)
        for i in range(sites):
            z = pyro.sample(f"z_{i}", dist.Bernoulli(0.3 + 0.4 * z))
            pyro.sample(f"x_{i}", dist.Normal(2 * z, 1.0), obs=torch.tensor(3.0 + i))

    def guide():
        z = torch.tensor(0.0)
        for i in range(sites):
            probs = pyro.param(f"probs_{i}", torch.tensor([0.4, 0.6]))
            z = pyro.sample(f"z_{i}", dist.Bernoulli(probs[z.long()]), infer=infer)

    return model, guide


def belief_net(infer, rows=30):
    """A sigmoid belief net: two layers of binary units for each row, and weights with a prior."""
    x = (torch.rand(rows, 8) < 0.3).float()

    def model():
        w = pyro.sample("w", dist.Normal(torch.zeros(4, 8), 1.0).to_event(2))
        v = pyro.param("v", torch.randn(2, 4))
        with pyro.plate("rows", rows):
            top = pyro.sample("top", dist.Bernoulli(0.5 * torch.ones(2)).to_event(1))
            units = pyro.sample("units", dist.Bernoulli(logits=top @ v).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=units @ w).to_event(1), obs=x)

    def guide():
        loc = pyro.param("loc", torch.zeros(4, 8))
        pyro.sample("w", dist.Normal(loc, 0.1).to_event(2))
        a, b = pyro.param("a", torch.zeros(8, 4)), pyro.param("b", torch.zeros(4, 2))
        with pyro.plate("rows", rows):
            units = pyro.sample("units", dist.Bernoulli(logits=x @ a).to_event(1), infer=infer)
            pyro.sample("top", dist.Bernoulli(logits=units @ b).to_event(1), infer=infer)

    return model, guide


MODELS = {
    "coin, ten flips": coin,
    "five sites in a loop": independent,
    "chain of five sites": chain,
    "belief net, 30 rows": belief_net,
}
ELBOS = {"Trace_ELBO": Trace_ELBO, "TraceGraph_ELBO": TraceGraph_ELBO, "ours": TraceKL_ELBO}


def rows(draws):
    """Lines of the table."""
    for name, make in MODELS.items():
        for baseline, infer in (("none", {}), ("average", AVERAGE)):
            pyro.clear_param_store()
            pyro.set_rng_seed(0)
            model, guide = make(infer)
            guide()
            elbos = {of: Elbo() for of, Elbo in ELBOS.items()}
            noise = {}
            for of, elbo in elbos.items():
                pyro.set_rng_seed(1)  # all have the same draws
                gradient_noise(elbo, model, guide, 50)  # learns the baseline
                noise[of], _ = gradient_noise(elbo, model, guide, 2 * draws)
            steps = {
                of: partial(seconds, partial(elbo.loss_and_grads, model, guide))
                for of, elbo in elbos.items()
            }
            cost = {of: median(spent) for of, spent in interleaved(steps, 100).items()}
            ours, theirs = "ours", "TraceGraph_ELBO"
            yield (
                f"| {name} | {baseline} | {noise[ours] / noise['Trace_ELBO']:.2f} "
                f"| {noise[ours] / noise[theirs]:.2f} | {cost[ours] / cost[theirs]:.2f} |"
            )


HEADER = """\
| model | baseline | gradient variance / Trace_ELBO's | gradient variance / TraceGraph_ELBO's | time of a step / TraceGraph_ELBO's |
|---|---|---|---|---|"""  # noqa: E501


if __name__ == "__main__":
    main(HEADER, rows)
