"""What is wrong in an expression, and where."""

from __future__ import annotations

import ast

from ..refused import Refused

#: A longer expression is not repeated below the message.
_SHOWN = 76


class Mistake(Refused):
    """An expression cannot be built: one line that says what is wrong, and where in the text.

    Args:
        message: what is wrong and what to do.
        at: the part of the expression; None for the whole.
    """

    def __init__(self, message: str, at: ast.AST | None = None) -> None:
        super().__init__(" ".join(message.split()))
        self.at = at
        self.text = ""

    def within(self, text: str) -> Mistake:
        """The mistake, which now shows the expression with a caret under the place."""
        self.text = text
        return self

    def __str__(self) -> str:
        message = str(self.args[0])
        if not self.text.strip():
            return message
        column = self._column()
        if "\n" in self.text or len(self.text) > _SHOWN or not self.text.isprintable():
            return f"{message} (at column {column + 1})"
        return f"{message}\n  {self.text}\n  {' ' * column}^"

    def _column(self) -> int:
        """Characters before the place; ast counts bytes, and lines."""
        line, offset = getattr(self.at, "lineno", 1), getattr(self.at, "col_offset", 0)
        lines = self.text.splitlines() or [""]
        before = lines[: line - 1]
        last = lines[min(line, len(lines)) - 1].encode(errors="replace")[:offset]
        return sum(len(x) + 1 for x in before) + len(last.decode(errors="replace"))


class Place(ast.AST):
    """A place in the text of an expression that did not parse."""

    def __init__(self, line: int, column: int) -> None:
        super().__init__()
        self.lineno, self.col_offset = line, column
