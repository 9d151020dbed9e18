"""The progress bar of a fit."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from ..messages import see
from ..registry.warnings import warn_once

#: Seconds before a bar is shown at all, and between two of its updates.
DELAY, INTERVAL = 2.0, 0.25
#: Seconds between two lines where each update is a line of its own.
LINES_INTERVAL = 10.0


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
            self._next = time.monotonic() + interval()

    def close(self, losses: Sequence[Any]) -> None:
        """Draw the bar for the last time, if it was drawn before."""
        if self._bar is not None:
            self._draw(losses)
            self._bar.close()

    def _draw(self, losses: Sequence[Any]) -> None:
        if self._bar is None:
            self._bar = new_bar(total=self._total, desc="SVI", unit="step")
            self._bar.start_t -= time.monotonic() - self._start  # the steps began then
            self._bar.last_print_t = self._bar.start_t
        new = losses[self._drawn :]
        if new and not isinstance(new[0], tuple):
            self._bar.set_postfix_str(f"loss={sum(new) / len(new):.5g}", refresh=False)
        self._bar.update(len(new))
        self._drawn = len(losses)


def is_shown(show: bool | None) -> bool:
    """Whether there is a bar; its absence is warned about if it was asked for.

    Args:
        show: True, False, or None for a bar where somebody sees it move: on a terminal or in a
            notebook, and not where tests run (the environment variable CI).
    """
    has_tqdm = importlib.util.find_spec("tqdm") is not None
    if show is None:
        return has_tqdm and not os.environ.get("CI") and (is_terminal() or is_notebook())
    if show and not has_tqdm:
        warn_once(
            "no tqdm",
            "progress=True shows nothing without tqdm: install it." + see("missing-library"),
        )
    return show and has_tqdm


def is_terminal() -> bool:
    """Whether standard error is a terminal on which a line can be drawn again."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def new_bar(**options: Any) -> Any:
    """A bar of tqdm: a widget, a line that is drawn again, or one line after another.

    A notebook without ipywidgets has a line, as a terminal has. A file, a pipe and a dumb terminal
    cannot draw a line again: they get a new one, at most every `LINES_INTERVAL` seconds.

    Args:
        options: of `tqdm.tqdm`.
    """
    if is_notebook() and importlib.util.find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm
    else:
        from tqdm.std import tqdm
    if not (is_notebook() or is_terminal()):
        options = {"file": _Lines(sys.stderr), "ncols": 80, "ascii": True, **options}
    return tqdm(mininterval=0.0, **options)


def interval() -> float:
    """Seconds between two updates of a bar."""
    return INTERVAL if is_notebook() or is_terminal() else LINES_INTERVAL


class _Lines:
    """A file that gets a line of its own for each state of a bar."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, text: str) -> None:
        """Write what tqdm draws, without the characters that move the cursor."""
        line = text.strip("\r\n ")
        if line:
            self._file.write(f"{line}\n")

    def flush(self) -> None:
        self._file.flush()
