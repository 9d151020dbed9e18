"""Six models on which a step of SVI is tested and timed, each with its guide and data.

Data and start are in torch's default dtype, and the same at each call. A guide that draws its
start, as `AutoMultivariateNormal` does, draws it at the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import Tensor, nn

from models import eight_schools
from models.data import load_breast_cancer, standardise


@dataclass(frozen=True)
class Problem:
    """What a fit by SVI takes.

    Attributes:
        model: The model.
        guide: Its guide.
        batches: The arguments of both at step 0, 1, ...; after the last one the first again.
        lr: Adam's learning rate.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any]
    batches: Sequence[tuple[Tensor, ...]]
    lr: float

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Return the arguments of model and guide at a step."""
        return self.batches[step % len(self.batches)]


def _linear(x: Tensor, w: Tensor) -> Tensor:
    """``x @ w`` of rows ``x`` (N, D); under vectorised particles ``w`` is (P, 1, D)."""
    return x @ w if w.dim() == 1 else (w @ x.mT).squeeze(-2)


def _minibatches(size: int, *data: Tensor) -> Sequence[tuple[Tensor, ...]]:
    """The rows of all columns, ``size`` in each batch."""
    return [*zip(*(column.split(size) for column in data), strict=True)]


def _random_labels(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Labels 0 and 1 that have these logits."""
    return torch.bernoulli(logits.sigmoid(), generator=generator)


def _logistic_regression(
    rows: int, dim: int
) -> tuple[Callable[[Tensor, Tensor], None], Callable[[Tensor, Tensor], None]]:
    """Model and guide of a logistic regression, whose arguments may be some of the rows."""

    def model(x: Tensor, y: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
        with pyro.plate("data", len(y), dim=-1), poutine.scale(scale=rows / len(y)):
            pyro.sample("y", dist.Bernoulli(logits=_linear(x, w)), obs=y)

    def guide(x: Tensor, y: Tensor) -> None:
        loc = pyro.param("loc", lambda: torch.zeros(dim))
        scale = pyro.param(
            "scale", lambda: torch.full((dim,), 0.1), constraint=constraints.positive
        )
        pyro.sample("w", dist.Normal(loc, scale).to_event(1))

    return model, guide


def breast_cancer() -> Problem:
    """A logistic regression on 569 rows of 30 standardised features and a column of ones."""
    (data,) = standardise(load_breast_cancer())
    x = torch.cat([torch.ones(len(data), 1), data.features], -1).to(torch.get_default_dtype())
    y = data.labels.to(x.dtype)
    return Problem(*_logistic_regression(*x.shape), [(x, y)], lr=0.01)


def minibatches() -> Problem:
    """A logistic regression on 100,000 rows of 100 features, 1,000 rows at each step."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100_000, 100, generator=generator)
    y = _random_labels(x @ torch.randn(100, generator=generator), generator)
    return Problem(*_logistic_regression(*x.shape), _minibatches(1_000, x, y), lr=0.01)


def fifty_sites() -> Problem:
    """A linear regression with a site for each of 50 coefficients, each of two numbers."""
    count, rows = 50, 500
    x = torch.randn(rows, count, generator=torch.Generator().manual_seed(0))
    y = x.sum(-1)

    def model(x: Tensor, y: Tensor) -> None:
        w = [
            pyro.sample(f"w{i}", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            for i in range(count)
        ]
        with pyro.plate("data", rows, dim=-1):
            mean = _linear(x, torch.stack(w, -2)[..., 0])
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    def guide(x: Tensor, y: Tensor) -> None:
        for i in range(count):
            loc = pyro.param(f"loc{i}", lambda: torch.zeros(2))
            scale = pyro.param(f"scale{i}", lambda: torch.ones(2), constraint=constraints.positive)
            pyro.sample(f"w{i}", dist.Normal(loc, scale).to_event(1))

    return Problem(model, guide, [(x, y)], lr=0.01)


def eight_schools_full_rank() -> Problem:
    """Eight schools, centred, with a multivariate Normal over all unconstrained sites."""
    return Problem(eight_schools.model, AutoMultivariateNormal(eight_schools.model), [()], lr=0.01)


def hierarchical_logistic() -> Problem:
    """A logistic regression whose 5 coefficients differ between 20 groups, 2,000 rows."""
    groups, dim, rows = 20, 5, 2_000
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, dim, generator=generator)
    group = torch.arange(rows) % groups
    coefficients = torch.randn(dim, generator=generator)
    coefficients = coefficients + 0.5 * torch.randn(groups, dim, generator=generator)
    y = _random_labels((x * coefficients[group]).sum(-1), generator)

    def model(x: Tensor, group: Tensor, y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(torch.zeros(dim), 5.0).to_event(1))
        spread = pyro.sample("spread", dist.HalfCauchy(torch.ones(dim)).to_event(1))
        with pyro.plate("groups", groups, dim=-1):
            w = pyro.sample("w", dist.Normal(mean, spread).to_event(1))
        with pyro.plate("data", rows, dim=-1):
            logits = (x * w[..., group, :]).sum(-1)
            pyro.sample("y", dist.Bernoulli(logits=logits), obs=y)

    return Problem(model, AutoNormal(model), [(x, group, y)], lr=0.01)


def vae() -> Problem:
    """A variational autoencoder on random images of 28 x 28 pixels, 100 at each step.

    Reference: Kingma and Welling (2014), Auto-Encoding Variational Bayes, appendix C.
    """
    pixels, hidden, latent = 784, 400, 20
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = torch.bernoulli(torch.full((1_000, pixels), 0.2))
        encoder = nn.Sequential(
            nn.Linear(pixels, hidden), nn.Softplus(), nn.Linear(hidden, 2 * latent)
        )
        decoder = nn.Sequential(
            nn.Linear(latent, hidden), nn.Softplus(), nn.Linear(hidden, pixels)
        )

    def model(images: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("images", len(images), dim=-1):
            z = pyro.sample("z", dist.Normal(images.new_zeros(latent), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=images)

    def guide(images: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("images", len(images), dim=-1):
            loc, log_scale = encoder(images).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return Problem(model, guide, _minibatches(100, images), lr=1e-3)


#: By name, what makes a problem: parameters that were not fitted yet, fresh data.
PROBLEMS: dict[str, Callable[[], Problem]] = {
    "breast cancer": breast_cancer,
    "50 sites": fifty_sites,
    "minibatches of 1,000": minibatches,
    "eight schools": eight_schools_full_rank,
    "hierarchical logistic": hierarchical_logistic,
    "VAE": vae,
}
