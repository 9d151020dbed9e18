"""One simulation: latents from the prior, data given them, a fit, and the ranks of the latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ..messages import see
from ..svi.random_state import random_state_kept
from .sites import Sites


class Refused(Exception):
    """The guides that are fitted cannot be calibrated; no other simulation would help."""


@dataclass(frozen=True)
class Simulation:
    """A model and a way to fit it.

    Attributes:
        model: the model, with data for all of its observed sites.
        fit: takes a model with simulated data, fits a guide and returns it.
        args: of the model and the guide.
        kwargs: of the model and the guide.
        num_draws: of the guide, among which a rank is found.
        sites: of the model.
    """

    model: Callable[..., Any]
    fit: Callable[[Callable[..., Any]], Callable[..., Any]]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    num_draws: int
    sites: Sites

    def run(self, seed: int) -> dict[str, list[int]]:
        """Latent -> the rank of each of its elements among the guide's draws.

        Args:
            seed: of all random numbers, so that a simulation does not depend on those before it.
        """
        pyro.set_rng_seed(seed)
        with pyro.get_param_store().scope():
            free = poutine.uncondition(self.model)
            with torch.no_grad():
                truth: Any = poutine.trace(free).get_trace(*self.args, **self.kwargs)
            data = {name: truth.nodes[name]["value"] for name in self.sites.observed}
            latents = {name: truth.nodes[name]["value"].cpu() for name in self.sites.shapes}
            guide = self.fit(poutine.condition(free, data=data))
            if not callable(guide):
                raise Refused(
                    f"fit returned {type(guide).__name__}, and not a guide. fit(model) has to "
                    "make a guide, fit it to the model and return it." + see("calibration")
                )
            with torch.no_grad():
                self._check_arguments(guide, data, seed)
                return self._ranks(guide, latents)

    def _ranks(
        self, guide: Callable[..., Any], latents: dict[str, Tensor]
    ) -> dict[str, list[int]]:
        ranks = {name: torch.zeros(x.shape, dtype=torch.long) for name, x in latents.items()}
        # among n draws equal to a value its rank is uniform on 0 ... n
        places = {name: torch.rand(x.shape) for name, x in latents.items()}
        for _ in range(self.num_draws):
            drawn = self._draw(guide, self.args, self.kwargs)
            for name, value in latents.items():
                tied = (drawn[name] == value) & (torch.rand(value.shape) < places[name])
                ranks[name] += (drawn[name] < value) | tied
        return {name: rank.reshape(-1).tolist() for name, rank in ranks.items()}

    def _draw(
        self, guide: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Tensor]:
        """One draw of each latent."""
        nodes: Any = poutine.trace(guide).get_trace(*args, **kwargs).nodes
        missing = [name for name in self.sites.shapes if name not in nodes]
        if missing:
            raise Refused(
                f"The guide does not draw {', '.join(missing)}, which therefore has no rank. "
                "Sample it in the guide. If it is summed out, give calibrate() the model that "
                "marks it for enumeration (config_enumerate)." + see("site-only-in-model")
            )
        drawn: dict[str, Tensor] = {name: nodes[name]["value"].cpu() for name in self.sites.shapes}
        for name, value in drawn.items():
            if tuple(value.shape) != self.sites.shapes[name]:
                raise Refused(
                    f"{name} has shape {self.sites.shapes[name]} in the model and "
                    f"{tuple(value.shape)} in the guide." + see("calibration")
                )
            if value.isnan().any():
                raise ValueError(f"The fitted guide draws nan at {name}." + see("loss-not-finite"))
        return drawn

    def _check_arguments(
        self, guide: Callable[..., Any], data: dict[str, Tensor], seed: int
    ) -> None:
        """Raise if other data in the arguments change what the guide draws.

        It is called with the arguments of the user, which hold the data that were not simulated.
        """
        old = {id(value): data[name] for name, value in self.sites.observed.items()}
        args, kwargs = _replaced(self.args, old), _replaced(self.kwargs, old)
        if not any(id(x) in old for x in _leaves((self.args, self.kwargs))):
            return
        draws = []
        with random_state_kept():
            for given in ((self.args, self.kwargs), (args, kwargs)):
                pyro.set_rng_seed(seed)
                draws.append(self._draw(guide, *given))
        reads = [name for name, value in draws[0].items() if not value.equal(draws[1][name])]
        if reads:
            raise Refused(
                f"The guide draws {', '.join(reads)} from the data in its arguments, and these "
                "are not the simulated data. Let fit() take the data from the model that it is "
                "given, and return a guide that uses them." + see("calibration")
            )


def _leaves(given: Any) -> Iterator[Any]:
    """What arguments hold, also in lists and dictionaries."""
    if isinstance(given, (list, tuple, dict)):
        for x in given.values() if isinstance(given, dict) else given:
            yield from _leaves(x)
    else:
        yield given


def _replaced(given: Any, new: dict[int, Tensor]) -> Any:
    """Arguments in which some tensors, by their ids, are replaced."""
    if id(given) in new:
        return new[id(given)]
    if type(given) in (list, tuple):
        return type(given)(_replaced(x, new) for x in given)
    if type(given) is dict:
        return {key: _replaced(x, new) for key, x in given.items()}
    return given
