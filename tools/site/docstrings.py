"""Docstrings as reStructuredText: they are written to be read as plain text."""

from __future__ import annotations

import re
from typing import Any

#: An attribute that scikit-learn's convention ends in an underscore, which would make a link.
_FITTED = re.compile(r"^(:(?:ivar|vartype) \w+)_:")
_BARS = re.compile(r"(?<![`\\])\|")


def as_rst(app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Escape what reStructuredText would take for markup, line by line in place."""
    for index, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[index] = _FITTED.sub(r"\1\\_:", _BARS.sub(r"\\|", line))
