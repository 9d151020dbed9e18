"""Lines that fit the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from .package import text_module
from .tables import width

#: The width of a line in a file or a pipe.
_WIDTH = 80


def field(name: str, text: str) -> str:
    """A line `  name   text`, continued under the text."""
    return filled(f"  {name:<9}  {text}", indent=13)


def fields(rows: Mapping[str, str]) -> str:
    """A line for each name."""
    return "\n".join(field(name, text) for name, text in rows.items())


def filled(line: str, indent: int | None = None) -> str:
    """A line that fits the terminal, or 80 columns; its continuation is indented as it is."""
    columns = width() or _WIDTH
    if len(line) <= columns:
        return line
    deep = len(line) - len(line.lstrip()) if indent is None else indent
    return text_module().fill(line, columns, deep)
