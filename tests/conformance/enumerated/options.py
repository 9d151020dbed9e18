"""What a generated model is told: where its discrete sites are, and what surrounds them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from torch import Tensor

#: Where a discrete site is, and how it is summed.
PLACES = ("model", "guide", "sequential", "drawn")
#: The guide of a continuous latent, by name: see `posterior`.
FAMILIES = ("normal", "normal", "lognormal", "point", "score", "several")


@dataclass(frozen=True)
class Options:
    """The choices of one model.

    Attributes:
        place: "model" (only the model has the site), "guide" (both have it, and it is summed in
            parallel), "sequential" (the same, one value after the other), "drawn" (sampled).
        family: the guide of continuous latents.
        particles: "vectorized", "several" or "one".
        masked: whether some rows are masked.
        scale: factor of the log densities in the plate.
        subsampled: whether a step sees some of the rows.
        local: whether each row has a continuous latent of its own.
    """

    place: str
    family: str
    particles: str
    masked: bool
    scale: float
    subsampled: bool
    local: bool

    @classmethod
    def random(cls, seed: int) -> Options:
        """Choices by chance."""
        rng = random.Random(seed)
        place = rng.choice([*PLACES, "model", "guide"])
        family = rng.choice(FAMILIES)
        particles = rng.choice(["vectorized"] * 4 + ["several", "one"])
        return cls(
            place=place,
            family=family,
            particles=particles,
            masked=rng.random() < 0.4,
            scale=rng.choice([1.0, 1.0, 0.5, 3.0]),
            subsampled=rng.random() < 0.35,
            local=rng.random() < 0.6,
        )

    @property
    def title(self) -> str:
        """The choices in words."""
        words = [self.place, self.family, self.particles]
        words += ["masked"] * self.masked + ["subsampled"] * self.subsampled
        words += ["local"] * self.local + [f"x{self.scale}"] * (self.scale != 1.0)
        return " ".join(words)

    @property
    def guided(self) -> bool:
        """Whether the guide has the discrete site."""
        return self.place != "model"

    @property
    def in_model(self) -> dict[str, Any]:
        """`infer` of the discrete site in the model."""
        return {"enumerate": "parallel"} if self.place == "model" else {}

    @property
    def in_guide(self) -> dict[str, Any]:
        """`infer` of the discrete site in the guide."""
        kinds = {"guide": "parallel", "sequential": "sequential"}
        return {"enumerate": kinds[self.place]} if self.place in kinds else {}

    @contextmanager
    def surroundings(self, mask: Tensor) -> Iterator[None]:
        """The scale, and the mask of the rows."""
        with ExitStack() as stack:
            if self.scale != 1.0:
                stack.enter_context(poutine.scale(scale=self.scale))
            if self.masked:
                stack.enter_context(poutine.mask(mask=mask))
            yield

    def rows(self, name: str, size: int, index: Tensor, dim: int = -1) -> Any:
        """The plate of the rows of a step."""
        return pyro.plate(name, size, subsample=index if self.subsampled else None, dim=dim)

    def index(self, size: int, step: int) -> Tensor:
        """The rows of a step."""
        rows = torch.arange(size)
        return rows.roll(step)[: size - 1] if self.subsampled else rows

    def prior(self, loc: Tensor, scale: float = 1.5) -> Any:
        """The prior of a continuous latent; some have no closed form under their guide."""
        if self.family == "lognormal":
            return dist.Gamma(2.0, (0.3 * loc).exp())
        return dist.Normal(loc, scale)

    def posterior(self, loc: Tensor, scale: Tensor) -> Any:
        """The guide of a continuous latent.

        "score" has no reparametrised draws, and "several" is a Normal of which each particle
        draws a few at once (`several_draws`).
        """
        if self.family == "lognormal":
            return dist.LogNormal(0.3 * loc, scale)
        if self.family == "point":
            return dist.Delta(loc + 0.0 * scale)
        if self.family == "score":
            return NonreparameterizedNormal(loc, scale)
        return dist.Normal(loc, scale)

    def log_normal(self, loc: Tensor, scale: Tensor) -> Any:
        """The guide of a scale."""
        if self.family == "point":
            return dist.Delta(loc.exp())
        return dist.LogNormal(loc, scale)

    def dirichlet(self, concentration: Tensor) -> Any:
        """The guide of probabilities."""
        if self.family == "point":
            return dist.Delta(concentration / concentration.sum(-1, True), event_dim=1)
        return dist.Dirichlet(concentration)

    def beta(self, a: Tensor, b: Tensor) -> Any:
        """The guide of one probability."""
        return dist.Delta(a / (a + b)) if self.family == "point" else dist.Beta(a, b)

    @property
    def nothing_drawn(self) -> bool:
        """Whether loss and gradient have no noise."""
        return self.family == "point" and self.place != "drawn"

    @property
    def several_draws(self) -> dict[str, Any]:
        """`infer` of a local continuous latent in the guide."""
        if self.family != "several":
            return {}
        return {"enumerate": "parallel", "num_samples": 5, "expand": True}


@dataclass(frozen=True)
class EnumeratedModel:
    """A model and a guide.

    Attributes:
        title: what was chosen.
        model: takes the rows of a step.
        guide: takes the rows of a step.
        nesting: plates that are nested.
        size: rows.
        options: the choices.
    """

    title: str
    model: Callable[[Tensor], Any]
    guide: Callable[[Tensor], Any]
    nesting: int
    size: int
    options: Options


def param(name: str, start: Any, constraint: Any = constraints.real) -> Tensor:
    """A parameter in float64."""
    value = torch.as_tensor(start, dtype=torch.float64)
    tensor: Tensor = pyro.param(name, lambda: value.clone(), constraint=constraint)
    return tensor


def positive(name: str, start: Any) -> Tensor:
    """A positive parameter."""
    return param(name, start, constraints.positive)


def spread(*shape: int, low: float = 0.2, high: float = 1.0) -> Tensor:
    """Numbers between two, in an order that is not theirs."""
    count = torch.Size(shape).numel()
    numbers = torch.linspace(low, high, count, dtype=torch.float64)
    return numbers[(torch.arange(count) * 7 + 3) % count if count % 7 else slice(None)].reshape(
        shape
    )


def simplex(name: str, *shape: int) -> Tensor:
    """A parameter of probabilities."""
    start = spread(*shape)
    return param(name, start / start.sum(-1, keepdim=True), constraints.simplex)
