"""Ctrl-C during a fit: not in the middle of a step."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class InterruptBetweenSteps:
    """Notes Ctrl-C instead of raising it, so that no step is left half done.

    A second Ctrl-C is raised at once. Only the main thread can do this, and only Python's own
    handler is replaced.

    Attributes:
        came: whether there was one.
    """

    def __init__(self) -> None:
        self.came = False
        self._is_installed = False

    def __enter__(self) -> InterruptBetweenSteps:
        """Replace Python's handler."""
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._is_installed = True
        return self

    def __exit__(self, *error: object) -> None:
        """Give Python its handler back."""
        if self._is_installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True
