"""Enumeration against sums over all assignments, written down in plain torch."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.ops.indexing import Vindex
from torch.distributions import Normal

from .by_hand import SEEN, P, Y, agree, both, real, simplex

pytestmark = pytest.mark.usefixtures("double")


@both
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_mixture_of_which_the_model_has_the_labels(Elbo, scale, monkeypatch):
    """The mask is inside of the logarithm and the scale outside."""

    def parameters():
        return simplex("weights", [0.2, 0.5, 0.3]), real("locs", [-1.0, 0.4, 0.9])

    def model():
        weights, locs = parameters()
        with pyro.plate("rows", 3), poutine.scale(scale=scale), poutine.mask(mask=SEEN):
            z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
            pyro.sample("y", dist.Normal(locs[z], 0.8), obs=Y)

    def by_hand():
        weights, locs = parameters()
        total = 0.0
        for seen, y in zip(SEEN, Y, strict=True):
            terms = [
                w.log() + Normal(m, 0.8).log_prob(y) * seen
                for w, m in zip(weights, locs, strict=True)
            ]
            total = total + torch.stack(terms).logsumexp(0)
        return scale * total

    agree(Elbo, model, lambda: None, by_hand, monkeypatch)


@both
@pytest.mark.parametrize("how", ["parallel", "sequential"])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_a_mixture_of_which_the_guide_has_the_labels(Elbo, how, scale, monkeypatch):
    def parameters():
        return simplex("weights", [0.2, 0.5, 0.3]), real("locs", [-1.0, 0.4, 0.9])

    def posterior():
        return simplex("q", [[0.3, 0.3, 0.4], [0.1, 0.2, 0.7], [0.8, 0.1, 0.1]])

    def model():
        weights, locs = parameters()
        with pyro.plate("rows", 3), poutine.scale(scale=scale), poutine.mask(mask=SEEN):
            z = pyro.sample("z", dist.Categorical(weights))
            pyro.sample("y", dist.Normal(locs[z], 0.8), obs=Y)

    def guide():
        with pyro.plate("rows", 3), poutine.scale(scale=scale), poutine.mask(mask=SEEN):
            pyro.sample("z", dist.Categorical(posterior()), infer={"enumerate": how})

    def by_hand():
        weights, locs = parameters()
        total = 0.0
        for probs, seen, y in zip(posterior(), SEEN, Y, strict=True):
            for q, w, m in zip(probs, weights, locs, strict=True):
                term = w.log() + Normal(m, 0.8).log_prob(y) - q.log()
                total = total + q * term * seen
        return scale * total

    agree(Elbo, model, guide, by_hand, monkeypatch)


@both
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("guided", [False, True])
def test_a_hidden_markov_model(Elbo, order, guided, monkeypatch):
    """All 27 or 8 paths, in model or guide."""
    states = 3 if order == 1 else 2
    start = torch.linspace(0.2, 1.0, states ** (order + 1)).reshape((states,) * (order + 1))
    infer = {"enumerate": "parallel"}

    def moves(name, factor):
        table = start if name == "moves" else start.flip(0)
        table = table**factor
        return simplex(name, table / table.sum(-1, keepdim=True))

    def locs():
        return real("locs", torch.linspace(-1.0, 1.0, states))

    def walk(table, emit, **where):
        past = [torch.tensor(0)] * order
        for t in pyro.markov(range(3), history=order):
            probs = Vindex(table)[(*past, slice(None))]
            z = pyro.sample(f"z_{t}", dist.Categorical(probs), **where)
            if emit:
                pyro.sample(f"y_{t}", dist.Normal(locs()[z], 0.7), obs=Y[t])
            past = [*past[1:], z]

    def model():
        walk(moves("moves", 1.0), True, infer={} if guided else infer)

    def guide():
        if guided:
            walk(moves("q_moves", 0.7), False, infer=infer)

    def chain(table, path):
        past, total = [0] * order, 0.0
        for z in path:
            total = total + table[(*past, z)].log()
            past = [*past[1:], z]
        return total

    def by_hand():
        paths = list(itertools.product(range(states), repeat=3))
        joint = [
            chain(moves("moves", 1.0), path)
            + sum(Normal(locs()[z], 0.7).log_prob(y) for z, y in zip(path, Y, strict=True))
            for path in paths
        ]
        if not guided:
            return torch.stack(joint).logsumexp(0)
        logs = [chain(moves("q_moves", 0.7), path) for path in paths]
        return sum(q.exp() * (p - q) for p, q in zip(joint, logs, strict=True))

    agree(Elbo, model, guide, by_hand, monkeypatch, nesting=0)


@both
def test_one_chain_in_the_guide_and_one_in_the_model(Elbo, monkeypatch):
    """E over w of the logarithm of a sum over v.

    In `pyro.markov`, Pyro's allocator gives dims of the guide's sites to the model's, and the sum
    is then another one.
    """
    table = torch.tensor([[0.7, 0.3], [0.2, 0.8]])
    infer = {"enumerate": "parallel"}

    def q():
        return simplex("q", [[0.6, 0.4], [0.35, 0.65]])

    def p():
        return simplex("p", [[0.5, 0.5], [0.1, 0.9]])

    def loc():
        return real("loc", 0.6)

    def model():
        w = v = torch.tensor(0)
        for t in range(2):
            w = pyro.sample(f"w_{t}", dist.Categorical(p()[w]))
            v = pyro.sample(f"v_{t}", dist.Categorical(table[v]), infer=infer)
            pyro.sample(f"y_{t}", dist.Normal(loc() * w - v, 0.9), obs=Y[t])

    def guide():
        w = torch.tensor(0)
        for t in range(2):
            w = pyro.sample(f"w_{t}", dist.Categorical(q()[w]), infer=infer)

    def by_hand():
        total, pairs = 0.0, list(itertools.product(range(2), repeat=2))
        for w in pairs:
            log_q = q()[0, w[0]].log() + q()[w[0], w[1]].log()
            terms = []
            for v in pairs:
                term = p()[0, w[0]].log() + p()[w[0], w[1]].log()
                term = term + table[0, v[0]].log() + table[v[0], v[1]].log()
                for t in range(2):
                    term = term + Normal(loc() * w[t] - v[t], 0.9).log_prob(Y[t])
                terms.append(term)
            total = total + log_q.exp() * (torch.stack(terms).logsumexp(0) - log_q)
        return total

    agree(Elbo, model, guide, by_hand, monkeypatch, nesting=0)


@both
def test_plates_in_plates(Elbo, monkeypatch):
    """A label of each group in the guide, one of each of its rows in the model."""
    data = torch.stack([Y, Y.flip(0) + 0.4])
    infer = {"enumerate": "parallel"}

    def p():
        return simplex("p", [[0.3, 0.7], [0.6, 0.4]])

    def q():
        return simplex("q", [[[0.2, 0.8]], [[0.5, 0.5]]])

    def locs():
        return real("locs", [-0.5, 0.8])

    def model():
        with pyro.plate("groups", 2, dim=-2):
            a = pyro.sample("a", dist.Categorical(P))
            with pyro.plate("rows", 3, dim=-1):
                b = pyro.sample("b", dist.Categorical(p()[a]), infer=infer)
                pyro.sample("y", dist.Normal(locs()[b] + 0.3 * a, 0.7), obs=data)

    def guide():
        with pyro.plate("groups", 2, dim=-2):
            pyro.sample("a", dist.Categorical(q()), infer=infer)

    def by_hand():
        total = 0.0
        for group, (a, prior) in itertools.product(range(2), enumerate((0.4, 0.6))):
            weight = q()[group, 0, a]
            rows = [
                torch.logsumexp(p()[a].log() + Normal(locs() + 0.3 * a, 0.7).log_prob(y), 0)
                for y in data[group]
            ]
            total = total + weight * (math.log(prior) + sum(rows) - weight.log())
        return total

    agree(Elbo, model, guide, by_hand, monkeypatch, nesting=2)
