"""Tables at the width of the terminal: by rich where it is installed, plain ones elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

from .package import text_module

#: rich takes 0.4 ms for a row: longer tables are plain ones.
_LONGEST_OF_RICH = 150


def width() -> int | None:
    """The width of the terminal, or COLUMNS; None for a file or a pipe."""
    if not _is_terminal() and "COLUMNS" not in os.environ:
        return None
    return shutil.get_terminal_size().columns


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that fits the terminal; one line for each row in a file or a pipe."""
    if _is_terminal() and len(rows) <= _LONGEST_OF_RICH:
        try:
            return _by_rich(header, rows)
        except ImportError:
            pass
    return text_module().columns([header, *rows], width())


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _by_rich(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        made.add_column(name, overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))  # a Text, since brackets in a str are rich's markup
    console = Console(width=width())
    with console.capture() as captured:
        console.print(made)
    return captured.get().rstrip("\n")
