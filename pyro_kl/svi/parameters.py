"""Values of parameters by name: read from Pyro's store, and put back into it in place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import constraints

from ..messages import see
from .random_state import random_state_kept


def leaf(name: str) -> Tensor:
    """The tensor that is optimised: unconstrained, a network's own where it is one's weight."""
    return pyro.get_param_store()._params[name]


def put_values(values: Mapping[str, Tensor]) -> None:
    """Set parameters to unconstrained values, in place."""
    with torch.no_grad():
        for name, value in values.items():
            leaf(name).copy_(value)


def saved_parameters(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Unconstrained values and constraints of those of some parameters that are in the store.

    Raises:
        RuntimeError: modules keep their parameters to themselves.
    """
    if pyro.settings.get("module_local_params"):
        raise RuntimeError(
            "A checkpoint holds the parameters of Pyro's store, and module_local_params=True "
            "keeps them in their modules: leave that setting off, or save their state_dict."
            + see("checkpoint")
        )
    store = pyro.get_param_store()
    return {
        name: {"value": leaf(name).detach().clone(), "constraint": repr(store._constraints[name])}
        for name in sorted(names)
        if name in store
    }


class Restore(Messenger):
    """Puts saved values into the parameters of the store, in place.

    A value is put there by `put_existing`, or in a block under this messenger in the moment in
    which model or guide declare the parameter: only then is it known which tensor it is (that of
    a network, say), and what its constraint is.

    Args:
        saved: what `saved_parameters` returned.

    Attributes:
        waiting: the saved parameters that have not been declared yet.
        unknown: the names of parameters that were declared and have no saved value.
    """

    def __init__(self, saved: Mapping[str, dict[str, Any]]) -> None:
        super().__init__()
        self._names = set(saved)
        self.waiting = dict(saved)
        self.unknown: set[str] = set()

    def put_existing(self) -> None:
        """Put the values of all parameters that are in the store."""
        here = [name for name in self.waiting if name in pyro.get_param_store()]
        for name in here:
            self._check(name)
        for name in here:
            self._put(name)

    def _pyro_param(self, msg: Any) -> None:
        name, store = msg["name"], pyro.get_param_store()
        if name not in self._names:
            self.unknown.add(name)
        if name not in self.waiting:
            return
        if name not in store and len(msg["args"]) > 1:
            constraint = msg["kwargs"].get("constraint", constraints.real)
            with random_state_kept():  # the start may be drawn
                store.setdefault(name, msg["args"][1], constraint)
        if name in store:
            self._check(name)
            self._put(name)

    def _check(self, name: str) -> None:
        saved = self.waiting[name]
        here = _described(leaf(name), repr(pyro.get_param_store()._constraints[name]))
        there = _described(saved["value"], saved["constraint"])
        if here != there:
            raise ValueError(
                f"The parameter {name} is {here}; in the checkpoint it is {there}."
                + see("checkpoint")
            )

    def _put(self, name: str) -> None:
        put_values({name: self.waiting.pop(name)["value"]})


def _described(value: Tensor, constraint: str) -> str:
    dtype = str(value.dtype).removeprefix("torch.")
    return f"{dtype} of shape {tuple(value.shape)} under {constraint}"
