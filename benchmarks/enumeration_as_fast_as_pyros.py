"""A gradient of TraceEnumKL_ELBO takes what one of TraceEnum_ELBO takes, or less.

    python -m benchmarks.enumeration_as_fast_as_pyros [--rounds 30]

The models are those of Pyro's tutorial on mixtures and of its example of hidden Markov models: of
order one, autoregressive, factorial, of order two. Process CPU time, interleaved, medians.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal
from pyro.ops.indexing import Vindex
from pyro.poutine.util import site_is_subsample

import pyro_kl

from .timing import medians

PARALLEL = {"enumerate": "parallel"}
SEQUENCES, STEPS, TONES, STATES = 10, 12, 30, 9


def mixture(rows: int) -> Callable[[], None]:
    """The mixture of the tutorial, with unknown weights, locations and scale."""
    data = torch.cat([torch.randn(rows // 2), 10.0 + torch.randn(rows - rows // 2)])

    def model() -> None:
        weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(2)))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 2.0))
        with pyro.plate("components", 2):
            locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
        with pyro.plate("data", rows):
            z = pyro.sample("z", dist.Categorical(weights), infer=PARALLEL)
            pyro.sample("x", dist.Normal(locs[z], scale), obs=data)

    return model


def music(kind: str) -> Callable[[], None]:
    """A hidden Markov model of tones: "first", "autoregressive", "factorial", "second"."""
    tones = (torch.rand(SEQUENCES, STEPS, TONES) < 0.2).float()
    lengths = torch.randint(STEPS // 2, STEPS + 1, (SEQUENCES,))
    states = {"factorial": int(STATES**0.5), "second": 4}.get(kind, STATES)

    def matrix(name: str, *shape: int) -> Any:
        prior = dist.Dirichlet(0.9 * torch.eye(states) + 0.1)
        if shape:
            prior = prior.expand_by(shape)
        return pyro.sample(name, prior.to_event(1 + len(shape)))

    def probabilities(*shape: int) -> Any:
        return pyro.sample("probs_y", dist.Beta(0.5, 1.5).expand(shape).to_event(len(shape)))

    def model() -> None:
        probs_x = matrix("probs_x", *((states,) if kind == "second" else ()))
        if kind == "factorial":
            probs_w = matrix("probs_w")
        extra = {"autoregressive": (2,), "factorial": (states,)}.get(kind, ())
        probs_y = probabilities(states, *extra, TONES)
        tones_plate = pyro.plate("tones", TONES, dim=-1)
        with pyro.plate("sequences", SEQUENCES, dim=-2):
            w = x = before = torch.tensor(0)
            y: Any = torch.tensor(0)
            for t in pyro.markov(range(STEPS), history=2 if kind == "second" else 1):
                with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                    move = Vindex(probs_x)[before, x] if kind == "second" else probs_x[x]
                    if kind == "factorial":
                        w = pyro.sample(f"w_{t}", dist.Categorical(probs_w[w]), infer=PARALLEL)
                    before, x = x, pyro.sample(f"x_{t}", dist.Categorical(move), infer=PARALLEL)
                    with tones_plate as tone:
                        at = {"factorial": (w, x), "autoregressive": (x, y)}.get(kind, (x,))
                        seen = dist.Bernoulli(Vindex(probs_y)[(*at, tone)])
                        y = pyro.sample(f"y_{t}", seen, obs=tones[:, t]).long()

    return model


#: The parameters of a guide of the prior's family.
LEARNT = {
    dist.Normal: ("loc", "scale"),
    dist.LogNormal: ("loc", "scale"),
    dist.Beta: ("concentration1", "concentration0"),
    dist.Dirichlet: ("concentration",),
}


def same_families(model: Callable[[], None]) -> Callable[[], None]:
    """A guide that draws each latent from the family of its prior, with parameters to learn."""
    latents = {}
    for name, site in poutine.trace(model).get_trace().iter_stochastic_nodes():
        if site_is_subsample(site):
            continue
        prior = site["fn"]
        while isinstance(prior, dist.Independent):
            prior = prior.base_dist
        latents[name] = prior, site["fn"].event_dim - prior.event_dim, site["cond_indep_stack"]

    def guide() -> None:
        for name, (prior, dims, plates) in latents.items():
            learnt = {
                key: pyro.param(
                    f"{name}.{key}",
                    (getattr(prior, key) + 0.1).clone(),
                    constraint=prior.arg_constraints[key],
                )
                for key in LEARNT[type(prior)]
            }
            with ExitStack() as stack:
                for plate in plates:
                    stack.enter_context(pyro.plate(plate.name, plate.size, dim=plate.dim))
                pyro.sample(name, type(prior)(**learnt).to_event(dims))

    return guide


def row(name: str, model: Callable[[], None], make: Any, rounds: int) -> None:
    """Print the medians of one model and guide."""
    pyro.clear_param_store()
    guide = make(poutine.block(model, hide_fn=lambda site: site["infer"].get("enumerate")))
    nesting = 1 if name.startswith("mixture") else 2
    elbos = {
        "TraceEnum": TraceEnum_ELBO(max_plate_nesting=nesting),
        "TraceEnumKL": pyro_kl.TraceEnumKL_ELBO(max_plate_nesting=nesting),
    }
    guide()

    def maker(elbo: Any) -> Callable[[], Any]:
        return lambda: lambda: elbo.loss_and_grads(model, guide)

    middle = medians({key: maker(elbo) for key, elbo in elbos.items()}, rounds, warm=3)
    theirs, ours = middle.values()
    times = f"{1e3 * theirs:7.2f} {1e3 * ours:7.2f} {ours / theirs:6.2f}"
    print(f"{name:<34} {make.__name__:<20} {times}", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Print all ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args(argv).rounds
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pyro.set_rng_seed(0)
    models = {
        "mixture, 6 rows": mixture(6),
        "mixture, 1000 rows": mixture(1_000),
        "HMM of order one": music("first"),
        "HMM, autoregressive": music("autoregressive"),
        "HMM, factorial": music("factorial"),
        "HMM of order two": music("second"),
    }
    with pyro.validation_enabled(False):
        print(f"{'ms of CPU for a gradient':<55} {'Pyro':>7} {'ours':>7} {'ratio':>6}")
        for name, model in models.items():
            for make in (AutoDelta, same_families, AutoNormal, AutoDiagonalNormal):
                row(name, model, make, rounds)


if __name__ == "__main__":
    main()
