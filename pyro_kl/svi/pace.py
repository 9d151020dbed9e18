"""How many steps a run takes at once."""

from __future__ import annotations

import time

#: Seconds that the steps taken at once should last at most: Ctrl-C and the bar wait for them.
LONGEST = 0.1


class Pace:
    """Grows with the speed of the steps, so that a fast step is not one call each.

    Args:
        unit: the number is a multiple of it.
        is_free: whether it may be more than the unit.
    """

    def __init__(self, unit: int, is_free: bool) -> None:
        self.count = self._unit = unit
        self._is_free = is_free
        self._before = time.monotonic()

    def start(self) -> None:
        """The steps begin."""
        self._before = time.monotonic()

    def end(self) -> None:
        """They are taken: their time decides on the next ones."""
        took = time.monotonic() - self._before
        if self._is_free and took < LONGEST / 2:
            self.count *= 2
        elif took > LONGEST and self.count > self._unit:
            self.count = max(self._unit, self.count // (2 * self._unit) * self._unit)
