"""The progress bar of a fit."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Sequence
from typing import Any

from ..messages import see
from ..registry.warnings import warn_once

#: Seconds before a bar is shown at all, and between two of its updates.
DELAY, INTERVAL = 2.0, 0.25


class Progress:
    """A bar on standard error with the mean of the losses since it was last drawn.

    It is made by tqdm, and only for runs that take longer than two seconds.

    Args:
        total: number of steps.
        show: True, False, or None for a bar where standard error is a terminal or a notebook.
    """

    def __init__(self, total: int, show: bool | None) -> None:
        self._total = total
        self._is_shown = is_shown(show)
        self._bar: Any = None
        self._drawn = 0
        self._start = time.monotonic()
        self._next = self._start + DELAY

    def update(self, losses: Sequence[Any]) -> None:
        """Draw the bar again if it is time to.

        Args:
            losses: of all steps so far.
        """
        if self._is_shown and time.monotonic() >= self._next:
            self._draw(losses)
            self._next = time.monotonic() + INTERVAL

    def close(self, losses: Sequence[Any]) -> None:
        """Draw the bar for the last time, if it was drawn before."""
        if self._bar is not None:
            self._draw(losses)
            self._bar.close()

    def _draw(self, losses: Sequence[Any]) -> None:
        if self._bar is None:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=self._total, desc="SVI", unit="step", mininterval=0.0)
            self._bar.start_t -= time.monotonic() - self._start  # the steps began then
            self._bar.last_print_t = self._bar.start_t
        new = losses[self._drawn :]
        if new and not isinstance(new[0], tuple):
            self._bar.set_postfix_str(f"loss={sum(new) / len(new):.5g}", refresh=False)
        self._bar.update(len(new))
        self._drawn = len(losses)


def is_shown(show: bool | None) -> bool:
    """Whether there is a bar; its absence is warned about if it was asked for."""
    has_tqdm = importlib.util.find_spec("tqdm") is not None
    if show is None:
        return has_tqdm and (sys.stderr.isatty() or "ipykernel" in sys.modules)
    if show and not has_tqdm:
        warn_once(
            "no tqdm",
            "progress=True shows nothing without tqdm: install it." + see("missing-library"),
        )
    return show and has_tqdm
