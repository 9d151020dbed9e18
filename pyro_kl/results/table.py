"""Table: what a result shows, from which its text, its HTML and its rich table are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .text import WIDTH, fill, text_lines

#: So many rows of a long result are shown at most.
SHOWN = 40


@dataclass(frozen=True)
class Table:
    """Cells as text, and the notes under them.

    Attributes:
        header: the name of each column.
        rows: the cells.
        align: l or r for each column; empty for l everywhere. Cells of columns with an r are
            numbers: they are not broken into lines.
        notes: sentences under the table.
        meanings: of some columns, by their names: a notebook shows them over the column's name.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str = ""
    notes: Sequence[str] = ()
    meanings: Mapping[str, str] = field(default_factory=dict)

    def text(self, width: int | None = WIDTH) -> str:
        """The table as text.

        Args:
            width: of a line, in characters; None for no limit.
        """
        lines = text_lines([self.header, *self.rows], width, self.align)
        return "\n".join([*lines, *(fill(note, width) for note in self.notes)])

    def html(self) -> str:
        """The table as HTML, for a notebook."""
        from html import escape

        sides = ["right" if side == "r" else "left" for side in self.align.ljust(len(self.header))]

        def row(cells: Sequence[str], tag: str) -> str:
            parts = []
            for cell, side, name in zip(cells, sides, self.header, strict=True):
                meaning = self.meanings.get(name, "") if tag == "th" else ""
                title = f' title="{escape(meaning)}"' if meaning else ""
                parts.append(f'<{tag}{title} style="text-align: {side}">{escape(cell)}</{tag}>')
            return f"<tr>{''.join(parts)}</tr>"

        head, body = row(self.header, "th"), "".join(row(cells, "td") for cells in self.rows)
        notes = "<br>".join(map(escape, self.notes))
        under = f"<p>{notes}</p>" if notes else ""
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>{under}"

    def rich(self) -> Any:
        """The table as a renderable of rich, which calls this."""
        from rich import box
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        for name, side in zip(self.header, self.align.ljust(len(self.header)), strict=True):
            right = side == "r"
            table.add_column(
                Text(name), justify="right" if right else "left", overflow="fold", no_wrap=right
            )
        for cells in self.rows:
            table.add_row(*map(Text, cells))
        return Group(table, *map(Text, self.notes))


def shown_rows(count: int) -> tuple[range, list[str]]:
    """The rows of a long result that are shown, and the note about those that are not."""
    rows = range(min(count, SHOWN))
    left = count - len(rows)
    return rows, [f"... and {left:,} more: to_dicts() has all {count:,}"] if left else []
