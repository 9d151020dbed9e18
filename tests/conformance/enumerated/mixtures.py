"""Mixtures: unknown weights, locations and scale; local latents; mixtures of topics; gaps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from pyro.ops.indexing import Vindex
from pyro.poutine import block, mask
from torch import Tensor

from .options import EnumeratedModel, Options, param, positive, simplex, spread

K, ROWS = 3, 4
X = torch.tensor([-1.3, 0.4, 1.9, 0.1], dtype=torch.float64)
SEEN = torch.tensor([True, True, False, True])


def mixture(o: Options) -> EnumeratedModel:
    """A mixture of Normals; each row may have a latent mean of its own around its component's."""

    def model(index: Tensor) -> None:
        weights = pyro.sample(
            "weights", dist.Dirichlet(positive("prior_weights", [1.5, 2.0, 1.0]))
        )
        centre = param("centre", 0.2)
        prior = o.prior(centre + spread(K, low=-1.0))
        locs = pyro.sample("locs", prior.to_event(1))
        scale = pyro.sample("scale", dist.Gamma(3.0, 3.0))
        with o.rows("rows", ROWS, index), o.surroundings(SEEN[index]):
            z = pyro.sample("z", dist.Categorical(weights), infer=o.in_model)
            mean = Vindex(locs)[..., z]
            if o.local:
                mean = pyro.sample("u", o.prior(mean, 0.8))
            pyro.sample("x", dist.Normal(mean, scale), obs=X[index])

    def guide(index: Tensor) -> None:
        pyro.sample("weights", o.dirichlet(positive("q_weights", [2.0, 3.0, 2.5])))
        locs = o.posterior(param("q_locs", spread(K, low=-0.8)), positive("q_scales", spread(K)))
        pyro.sample("locs", locs.to_event(1))
        pyro.sample("scale", o.log_normal(param("q_log_scale", -0.1), positive("q_width", 0.3)))
        with o.rows("rows", ROWS, index), o.surroundings(SEEN[index]):
            shift = param("q_u", spread(ROWS, low=-1.0))[index]
            if o.guided:
                probs = simplex("q_z", ROWS, K)[index]
                z = pyro.sample("z", dist.Categorical(probs), infer=o.in_guide)
                shift = shift + param("q_shift", spread(K))[z]
            if o.local:
                widths = positive("q_u_scale", spread(ROWS))[index]
                pyro.sample("u", o.posterior(shift, widths), infer=o.several_draws)

    return EnumeratedModel("mixture", model, guide, 1, ROWS, o)


def topics(o: Options) -> EnumeratedModel:
    """Documents with topics of their own, and a topic for each word: plates in plates."""
    docs, words, vocabulary = 3, 2, 4
    text = torch.tensor([[0, 1, 3], [2, 1, 0]])
    seen = torch.tensor([[True, True, False], [True, True, True]])

    def model(index: Tensor) -> None:
        concentration = positive("prior_words", spread(K, vocabulary) + 0.5)
        topics = pyro.sample("topics", dist.Dirichlet(concentration).to_event(1))
        with o.rows("docs", docs, index), o.surroundings(seen[0][index]):
            shares = pyro.sample("shares", dist.Dirichlet(positive("prior_shares", spread(K) + 1)))
            with pyro.plate("words", words, dim=-2), o.surroundings(seen[:, index]):
                z = pyro.sample("z", dist.Categorical(shares), infer=o.in_model)
                word = dist.Categorical(Vindex(topics)[..., z, :])
                pyro.sample("w", word, obs=text[:, index])

    def guide(index: Tensor) -> None:
        concentration = positive("q_words", 2 * spread(K, vocabulary) + 0.8)
        pyro.sample("topics", o.dirichlet(concentration).to_event(1))
        with o.rows("docs", docs, index), o.surroundings(seen[0][index]):
            pyro.sample("shares", o.dirichlet(positive("q_shares", spread(docs, K) + 1)[index]))
            if o.guided:
                with pyro.plate("words", words, dim=-2), o.surroundings(seen[:, index]):
                    probs = simplex("q_z", words, docs, K)[:, index]
                    pyro.sample("z", dist.Categorical(probs), infer=o.in_guide)

    return EnumeratedModel("topics", model, guide, 2, docs, o)


def gaps(o: Options) -> EnumeratedModel:
    """A covariate that is missing in some rows, and summed out there."""
    kind = torch.tensor([0, 1, 1, 0])

    def model(index: Tensor) -> None:
        slopes = pyro.sample("slopes", o.prior(param("centre", spread(2))).to_event(1))
        probs = pyro.sample("probs", dist.Beta(2.0, 3.0))
        with o.rows("rows", ROWS, index), o.surroundings(SEEN[index]):
            c = pyro.sample(
                "c",
                dist.Bernoulli(probs),
                obs=kind[index].to(X.dtype),
                obs_mask=SEEN[index],
                infer={"enumerate": "parallel"},
            )
            mean = Vindex(slopes)[..., c.long()]
            pyro.sample("x", dist.Normal(mean, 0.7), obs=X[index])

    def guide(index: Tensor) -> None:
        slopes = o.posterior(param("q_slopes", spread(2)), positive("q_widths", spread(2)))
        pyro.sample("slopes", slopes.to_event(1))
        concentrations = positive("q_probs", [2.0, 1.5])
        pyro.sample("probs", o.beta(concentrations[0], concentrations[1]))
        if o.guided:
            with o.rows("rows", ROWS, index), o.surroundings(SEEN[index]):
                probs = param("q_c", spread(ROWS, high=0.8))[index]
                with mask(mask=~SEEN[index]):  # or TraceKL_ELBO lends it the model's
                    pyro.sample("c_unobserved", dist.Bernoulli(probs), infer=o.in_guide)

    return EnumeratedModel("gaps", model, guide, 1, ROWS, o)


def autoguide(o: Options) -> EnumeratedModel:
    """The mixture with one of Pyro's autoguides for its continuous latents."""
    family = "point" if o.family == "point" else "normal"
    base = mixture(replace(o, place="model", family=family))
    kinds = {
        "normal": AutoNormal,
        "lognormal": AutoMultivariateNormal,
        "score": AutoDiagonalNormal,
        "point": AutoDelta,
        "several": AutoNormal,
    }
    kind = kinds[o.family]

    create: dict[str, Any] = {}
    if o.subsampled:
        create["create_plates"] = lambda index: o.rows("rows", ROWS, index)
    guide = kind(block(base.model, hide=["z"]), **create)
    return EnumeratedModel(kind.__name__, base.model, guide, 1, ROWS, base.options)
