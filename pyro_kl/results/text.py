"""Text in columns that fits a width: cells are wrapped, numbers stay whole as long as they can."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Sequence

#: The width of a line where nobody says another one.
WIDTH = 80
_GAP = "  "
#: Where a cell with a long word may be broken: also after a dot or an underscore of a name.
_BREAKS = re.compile(r"(\s+|(?<=[._])(?=[A-Za-z]))")


def text_lines(rows: Sequence[Sequence[str]], width: int | None, align: str = "") -> list[str]:
    """Rows in columns; the cells of wide columns take several lines.

    Args:
        rows: the header first; all of one length.
        width: the width of a line in characters; None for no limit.
        align: l or r for each column; empty for l everywhere.
    """
    align = align.ljust(len(rows[0]))
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(places, column)) for column in zip(*rows, strict=True)]
    if width is not None:
        _fit(widths, width - len(_GAP) * (len(widths) - 1), rows, align)
    return [line for row in rows for line in _lines(row, widths, align)]


def columns(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """`text_lines` as one text, with all cells aligned to the left."""
    return "\n".join(text_lines(rows, width))


def fill(text: str, width: int | None = WIDTH, indent: int = 2) -> str:
    """A sentence on lines that fit a width; all but the first are indented."""
    text = printable(text)
    if width is None:
        return text
    if places(text) > len(text):
        first, *others = _cut(text, width - indent)
        return "\n".join([first, *(f"{' ' * indent}{line.lstrip()}" for line in others)])
    return textwrap.fill(text, width, subsequent_indent=" " * indent, break_on_hyphens=False)


def places(text: str) -> int:
    """The places of a terminal that a text takes: a Chinese character takes two."""
    if text.isascii():
        return len(text)
    return sum(map(_places_of, text))


def _places_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def printable(text: str) -> str:
    """The text on one line, with escapes in the place of control characters."""
    if text.isprintable():
        return text
    return "".join(
        " "
        if x.isspace() and x != "\r"
        else repr(x)[1:-1]
        if unicodedata.category(x) == "Cc"
        else x
        for x in text
    )


def _fit(widths: list[int], width: int, rows: Sequence[Sequence[str]], align: str) -> None:
    """Shrink the widest columns until their sum is at most `width`.

    The names of columns of numbers are wrapped first, then texts, and numbers only at last.
    """
    numbers = [
        max(*map(places, cells), *map(places, name.split()), 1) if side == "r" else size
        for (name, *cells), side, size in zip(zip(*rows, strict=True), align, widths, strict=True)
    ]
    for least in (12, 6, 1):
        floors = [
            min(size, number if side == "r" else least)
            for size, number, side in zip(widths, numbers, align, strict=True)
        ]
        _shrink(widths, width, floors)
    _shrink(widths, width, [1] * len(widths))


def _shrink(widths: list[int], width: int, floors: Sequence[int]) -> None:
    """Take single characters from the widest column that is above its floor."""
    while sum(widths) > width:
        above = [i for i, size in enumerate(widths) if size > floors[i]]
        if not above:
            return
        widths[max(above, key=widths.__getitem__)] -= 1


def _lines(row: Sequence[str], widths: Sequence[int], align: str) -> list[str]:
    """One row, on as many lines as its longest cell takes."""
    cells = [
        [cell] if places(cell) <= size else _wrapped(cell, size)
        for cell, size in zip(row, widths, strict=True)
    ]
    return [
        _GAP.join(
            _padded(cell[i] if i < len(cell) else "", size, side)
            for cell, size, side in zip(cells, widths, align, strict=True)
        ).rstrip()
        for i in range(max(map(len, cells)))
    ]


def _padded(text: str, size: int, side: str) -> str:
    spaces = " " * (size - places(text))
    return spaces + text if side == "r" else text + spaces


def _wrapped(cell: str, size: int) -> list[str]:
    if places(cell) > len(cell):
        return _cut(cell, size)
    wrapper = textwrap.TextWrapper(size, break_on_hyphens=False)
    if max(map(len, cell.split())) > size:
        wrapper.wordsep_simple_re = _BREAKS
    return wrapper.wrap(cell)


def _cut(text: str, size: int) -> list[str]:
    """Lines that are cut after any character, as Chinese and Japanese are."""
    lines = [""]
    for character in text:
        if lines[-1] and places(lines[-1]) + _places_of(character) > size:
            lines.append("")
        lines[-1] += character
    return lines
