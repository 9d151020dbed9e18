"""Discrete and continuous latents that alternate: in nested plates, and upstream of each other."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from .options import EnumeratedModel, Options, param, positive, simplex, spread

GROUPS, ROWS = 2, 3
Y = torch.tensor([[0.3, -1.0, 1.4], [1.1, 0.2, -0.6]], dtype=torch.float64)
SEEN = torch.tensor([[True, True, False], [True, True, True]])


def plates(o: Options) -> EnumeratedModel:
    """A discrete latent for each group, and one for each of its rows that depends on it."""

    def model(index: Tensor) -> None:
        probs = pyro.sample("probs", dist.Beta(positive("prior_a", 2.0), 1.5))
        rows = o.rows("rows", ROWS, index)
        groups = pyro.plate("groups", GROUPS, dim=-2)
        table = torch.tensor([[0.2, 0.8], [0.6, 0.4]], dtype=Y.dtype)
        with groups, o.surroundings(torch.tensor([[True], [True]])):
            a = pyro.sample("a", dist.Bernoulli(probs), infer=o.in_model)
            mean = param("locs", [-0.5, 0.7])[a.long()]
            if o.local:
                mean = pyro.sample("u", o.prior(mean, 0.7))
        with groups, rows, o.surroundings(SEEN[:, index]):
            b = pyro.sample("b", dist.Categorical(table[a.long()]), infer=o.in_model)
            shift = param("shifts", [-0.6, 0.5])[b]
            pyro.sample("y", dist.Normal(mean + shift, 0.9), obs=Y[:, index])

    def guide(index: Tensor) -> None:
        concentrations = positive("q_probs", [2.5, 2.0])
        pyro.sample("probs", o.beta(concentrations[0], concentrations[1]))
        groups = pyro.plate("groups", GROUPS, dim=-2)
        with groups, o.surroundings(torch.tensor([[True], [True]])):
            shift = param("q_u", spread(GROUPS, 1))
            if o.guided:
                odds = param("q_a", spread(GROUPS, 1, high=0.7))
                a = pyro.sample("a", dist.Bernoulli(odds), infer=o.in_guide)
                shift = shift + param("q_shift", [0.1, -0.4])[a.long()]
            if o.local:
                width = positive("q_width", spread(GROUPS, 1))
                pyro.sample("u", o.posterior(shift, width), infer=o.several_draws)
        if o.guided:
            with groups, o.rows("rows", ROWS, index), o.surroundings(SEEN[:, index]):
                table = simplex("q_b", 2, GROUPS, ROWS, 2)[:, :, index]
                probs = torch.where(a[..., None] == 1, table[1], table[0])
                pyro.sample("b", dist.Categorical(probs), infer=o.in_guide)

    return EnumeratedModel("nested plates", model, guide, 2, ROWS, o)


def chain(o: Options, backwards: bool = False) -> EnumeratedModel:
    """Discrete, continuous, discrete, observed; the guide may draw them the other way round."""

    def model(index: Tensor) -> None:
        with o.rows("rows", ROWS, index), o.surroundings(SEEN[0][index]):
            d = pyro.sample("d", dist.Categorical(simplex("prior_d", 3)), infer=o.in_model)
            c = pyro.sample("c", o.prior(param("locs", spread(3, low=-1.0))[d], 0.8))
            e = pyro.sample("e", dist.Bernoulli(logits=c), infer=o.in_model)
            mean = param("shifts", [-0.6, 0.5])[e.long()] + 0.5 * c
            pyro.sample("y", dist.Normal(mean, 0.9), obs=Y[0, index])

    def guide(index: Tensor) -> None:
        with o.rows("rows", ROWS, index), o.surroundings(SEEN[0][index]):
            loc, width = param("q_c", spread(ROWS))[index], positive("q_width", spread(ROWS))
            width = width[index]
            if not o.guided:
                pyro.sample("c", o.posterior(loc, width), infer=o.several_draws)
                return
            odds, probs = param("q_e", [0.3, -0.4, 0.2]), simplex("q_d", 2, 3)
            if backwards:
                e = pyro.sample("e", dist.Bernoulli(logits=odds[index]), infer=o.in_guide)
                loc = loc + param("q_shift", [0.2, -0.3])[e.long()]
                c = pyro.sample("c", o.posterior(loc, width), infer=o.several_draws)
                logits = torch.stack([0.3 * c, -0.5 * c, 0.2 + 0.0 * c], -1) + odds
                pyro.sample("d", dist.Categorical(logits=logits), infer=o.in_guide)
            else:
                d = pyro.sample("d", dist.Categorical(probs[0]), infer=o.in_guide)
                c = o.posterior(loc + param("q_shift", spread(3))[d], width)
                c = pyro.sample("c", c, infer=o.several_draws)
                logits = 0.5 * c + odds[d]
                pyro.sample("e", dist.Bernoulli(logits=logits), infer=o.in_guide)

    title = "chain backwards" if backwards else "chain"
    return EnumeratedModel(title, model, guide, 1, ROWS, o)


def backwards(o: Options) -> EnumeratedModel:
    """The chain, with a guide that draws the last latent first."""
    return chain(o, backwards=True)
