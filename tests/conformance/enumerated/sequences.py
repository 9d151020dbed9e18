"""Hidden Markov models of order one and two, and factorial ones."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.ops.indexing import Vindex
from torch import Tensor

from .options import EnumeratedModel, Options, param, positive, simplex, spread

SEQUENCES, STEPS = 3, 3
Y = torch.tensor([[0.3, -1.0, 1.4], [1.1, 0.2, -0.6], [-0.9, 0.8, 0.5]], dtype=torch.float64)
LENGTHS = torch.tensor([3, 2, 3])


def hidden_markov(o: Options, order: int = 1) -> EnumeratedModel:
    """An HMM, whose transitions look back `order` steps; sequences may differ in length."""
    states = 3 if order == 1 else 2
    shape = (states,) * (order + 1)

    def model(index: Tensor) -> None:
        concentration = positive("prior_moves", 1.0 + spread(*shape))
        moves = pyro.sample("moves", dist.Dirichlet(concentration).to_event(order))
        locs = pyro.sample("locs", o.prior(param("centre", spread(states))).to_event(1))
        with o.rows("sequences", SEQUENCES, index), o.surroundings(LENGTHS[index] > 0):
            past = [torch.tensor(0)] * order
            for t in pyro.markov(range(STEPS), history=order):
                with poutine.mask(mask=(t < LENGTHS[index]) | (not o.masked)):
                    probs = Vindex(moves)[(..., *past, slice(None))]
                    z = pyro.sample(f"z_{t}", dist.Categorical(probs), infer=o.in_model)
                    mean = Vindex(locs)[..., z]
                    if o.local:
                        mean = pyro.sample(f"u_{t}", o.prior(mean, 0.9))
                    pyro.sample(f"y_{t}", dist.Normal(mean, 0.8), obs=Y[index, t])
                    past = [*past[1:], z]

    def guide(index: Tensor) -> None:
        concentration = positive("q_moves", 2.0 + spread(*shape))
        pyro.sample("moves", o.dirichlet(concentration).to_event(order))
        locs = o.posterior(param("q_locs", spread(states)), positive("q_scales", spread(states)))
        pyro.sample("locs", locs.to_event(1))
        if not (o.guided or o.local):
            return
        with o.rows("sequences", SEQUENCES, index), o.surroundings(LENGTHS[index] > 0):
            past = [torch.tensor(0)] * order
            for t in pyro.markov(range(STEPS), history=order):
                with poutine.mask(mask=(t < LENGTHS[index]) | (not o.masked)):
                    shift = param(f"q_u_{t}", spread(SEQUENCES))[index]
                    if o.guided:
                        probs = Vindex(simplex(f"q_z_{t}", *shape))[(*past, slice(None))]
                        z = pyro.sample(f"z_{t}", dist.Categorical(probs), infer=o.in_guide)
                        shift = shift + param(f"q_shift_{t}", spread(states))[z]
                        past = [*past[1:], z]
                    if o.local:
                        width = positive(f"q_width_{t}", 0.6)
                        u = o.posterior(shift, width)
                        pyro.sample(f"u_{t}", u, infer=o.several_draws)

    return EnumeratedModel(f"HMM of order {order}", model, guide, 1, SEQUENCES, o)


def second_order(o: Options) -> EnumeratedModel:
    """An HMM of order two."""
    return hidden_markov(o, order=2)


def factorial(o: Options) -> EnumeratedModel:
    """Two chains behind one observation; the second chain is always summed out in the model.

    Where the guide has the first one, `pyro.markov` would give its dims to the second one.
    """
    steps = range if o.guided else lambda count: pyro.markov(range(count))

    def model(index: Tensor) -> None:
        moves = pyro.sample("moves", dist.Dirichlet(1.0 + spread(2, 2)).to_event(1))
        loc = pyro.sample("loc", o.prior(param("centre", 0.3)))
        with o.rows("sequences", SEQUENCES, index), o.surroundings(LENGTHS[index] > 2):
            w, v = torch.tensor(0), torch.tensor(0)
            for t in steps(STEPS):
                move = dist.Categorical(Vindex(moves)[..., w, :])
                w = pyro.sample(f"w_{t}", move, infer=o.in_model)
                probs = torch.tensor([[0.7, 0.3], [0.2, 0.8]], dtype=Y.dtype)[v]
                v = pyro.sample(f"v_{t}", dist.Categorical(probs), infer={"enumerate": "parallel"})
                mean = loc * w + torch.tensor([-0.8, 0.9], dtype=Y.dtype)[v]
                pyro.sample(f"y_{t}", dist.Normal(mean, 0.8), obs=Y[index, t])

    def guide(index: Tensor) -> None:
        pyro.sample("moves", o.dirichlet(positive("q_moves", 1.5 + spread(2, 2))).to_event(1))
        pyro.sample("loc", o.posterior(param("q_loc", 0.4), positive("q_scale", 0.5)))
        if not o.guided:
            return
        with o.rows("sequences", SEQUENCES, index), o.surroundings(LENGTHS[index] > 2):
            w = torch.tensor(0)
            for t in steps(STEPS):
                probs = simplex(f"q_w_{t}", 2, 2)[w]
                w = pyro.sample(f"w_{t}", dist.Categorical(probs), infer=o.in_guide)

    return EnumeratedModel("factorial HMM", model, guide, 1, SEQUENCES, o)
