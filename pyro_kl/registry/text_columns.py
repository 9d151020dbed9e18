"""Text in columns, unlimited or wrapped to a given width."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

_GAP = "  "
#: The smallest width of a column.
_LEAST = 12


def columns(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Rows with their cells aligned to the left; cells of the widest columns wrap to fit a width.

    Args:
        rows: the header first; all of one length.
        width: the width of a line in characters; None for no limit.
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    while width is not None and sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        widest = max(widths)
        if widest <= _LEAST:
            break
        widths[widths.index(widest)] -= 1
    return "\n".join(line for row in rows for line in _lines(row, widths))


def _lines(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """One row, on as many lines as its longest cell takes."""
    cells = [
        [cell] if len(cell) <= size else textwrap.wrap(cell, size, break_on_hyphens=False)
        for cell, size in zip(row, widths, strict=True)
    ]
    return [
        _GAP.join(
            (cell[i] if i < len(cell) else "").ljust(size)
            for cell, size in zip(cells, widths, strict=True)
        ).rstrip()
        for i in range(max(map(len, cells)))
    ]
