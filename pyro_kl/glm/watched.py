"""Rows with a progress bar: which pass over them it is, and how far it has come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..svi.progress import DELAY, interval, is_shown, new_bar
from .passes.rows import Chunk, Rows, RowsOf

if TYPE_CHECKING:
    from .tables.target import Count, Target


class WatchedRows(RowsOf):
    """Rows that show a bar on standard error as their chunks are read.

    It is made by tqdm, and only where reading takes longer than two seconds.

    Args:
        rows: where the chunks come from.
        target: what 0 and 1 mean in them.
        show: True, False, or None for a bar where standard error is a terminal.
    """

    def __init__(self, rows: Rows, target: Target | Count, show: bool | None = None) -> None:
        super().__init__(rows)
        self.target = target
        self._is_shown = is_shown(show)
        self._bar: Any = None
        self._pass, self._last = 1, 0
        self._next = time.monotonic() + DELAY

    def chunk(self, index: int) -> Chunk:
        """Return one chunk."""
        self._pass += index < self._last
        self._last = index
        if self._is_shown and time.monotonic() >= self._next:
            self._draw(index)
            self._next = time.monotonic() + interval()
        return super().chunk(index)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()

    def _draw(self, index: int) -> None:
        if self._bar is None:
            self._bar = new_bar(total=self.num_chunks, unit="chunk", leave=False)
        self._bar.set_description(f"pass {self._pass}", refresh=False)
        self._bar.n = index
        self._bar.refresh()
