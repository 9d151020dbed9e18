"""One simulation: latents from the prior, data given them, a fit, and the ranks of the latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ..elbo.traces import is_deterministic, is_factor
from ..messages import see


@dataclass(frozen=True)
class Simulation:
    """A model and a way to fit it.

    Attributes:
        model: the model, with data for all of its observed sites.
        fit: takes a model with simulated data, fits a guide and returns it.
        args: of the model and the guide.
        kwargs: of the model and the guide.
        num_draws: of the guide, among which a rank is found.
    """

    model: Callable[..., Any]
    fit: Callable[[Callable[..., Any]], Callable[..., Any]]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    num_draws: int

    def run(self, seed: int) -> dict[str, list[int]]:
        """Latent -> the rank of each of its elements among the guide's draws.

        Args:
            seed: of all random numbers, so that a simulation does not depend on those before it.
        """
        pyro.set_rng_seed(seed)
        pyro.clear_param_store()
        free = poutine.uncondition(self.model)
        with torch.no_grad():
            truth = poutine.trace(free).get_trace(*self.args, **self.kwargs)
        latents, data = self._parts(truth)
        guide = self.fit(poutine.condition(free, data=data))
        ranks = {name: torch.zeros(x.shape, dtype=torch.long) for name, x in latents.items()}
        with torch.no_grad():
            for _ in range(self.num_draws):
                drawn: Any = poutine.trace(guide).get_trace(*self.args, **self.kwargs)
                for name, value in latents.items():
                    ranks[name] += _below(drawn.nodes[name]["value"], value)
        return {name: rank.reshape(-1).tolist() for name, rank in ranks.items()}

    def _parts(self, truth: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The values of latents, and those that are data of the model."""
        observed: Any = poutine.trace(self.model).get_trace(*self.args, **self.kwargs)
        latents: dict[str, Tensor] = {}
        data: dict[str, Tensor] = {}
        for name, node in observed.nodes.items():
            if node["type"] != "sample" or site_is_subsample(node) or is_deterministic(node):
                continue
            if is_factor(node):
                raise ValueError(
                    f"The model has the factor {name}, from which no data can be simulated."
                    + see("calibration")
                )
            (data if node["is_observed"] else latents)[name] = truth.nodes[name]["value"]
        if not data:
            raise ValueError("The model observes nothing." + see("calibration"))
        return latents, data


def _below(drawn: Tensor, value: Tensor) -> Tensor:
    """1 where a draw is below the value; a coin is tossed where they are equal."""
    coin = torch.rand(value.shape) < 0.5
    return ((drawn < value) | ((drawn == value) & coin)).long()
