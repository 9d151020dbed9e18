"""Averages of the parameters in Pyro's store, in the place of the last step's values."""

from __future__ import annotations

import pyro
from torch import Tensor

from .optimiser import Optimiser
from .parameters import leaf, put_values


class ShownAverages:
    """Which values the parameter store holds: averages, or those of the last step.

    Args:
        optimiser: has the averages.

    Attributes:
        iterates: the values of the last step while averages are shown; else empty.
    """

    def __init__(self, optimiser: Optimiser) -> None:
        self._optimiser = optimiser
        self.iterates: dict[str, Tensor] = {}

    def show(self) -> None:
        """Put the averages into the store.

        Raises:
            ValueError: the optimiser takes none.
        """
        averages = self._optimiser.averaged()
        if not self.iterates:
            self.iterates = {name: leaf(name).detach().clone() for name in averages}
            put_values(averages)

    def hide(self) -> None:
        """Put the values of the last step back; the store may have been cleared since."""
        if self.iterates:
            store = pyro.get_param_store()
            put_values({name: value for name, value in self.iterates.items() if name in store})
            self.iterates = {}
