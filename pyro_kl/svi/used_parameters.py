"""The parameters that a run of model and guide reads."""

from __future__ import annotations

from typing import Any

import pyro
from pyro.poutine.messenger import Messenger
from torch import Tensor


class UsedParameters(Messenger):
    """The parameters that model and guide read.

    Attributes:
        leaves: name in the parameter store -> unconstrained leaf. One leaf has two names where
            two modules share it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.leaves: dict[str, Tensor] = {}

    def _process_message(self, msg: Any) -> None:
        """Nothing; the methods of `Messenger` look for one of each message's type."""

    def _postprocess_message(self, msg: Any) -> None:
        if msg["type"] != "param":
            return
        unconstrained = getattr(msg["value"], "unconstrained", None)
        if unconstrained is not None:  # a module that keeps its own declares them without
            self.leaves[msg["name"]] = unconstrained()

    def distinct(self) -> dict[str, Tensor]:
        """Each leaf once, with the name that the store has for it."""
        name_of = pyro.get_param_store().param_name
        return {name_of(leaf) or name: leaf for name, leaf in self.leaves.items()}
