"""Calls each generator of pages, before Sphinx reads its sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .api import write_api


def all_pages(root: Path, *, only: bool) -> None:
    """Write the generated pages into docs/; none of them if only some pages are built."""
    if only:
        return
    write_api(root)


def finish(app: Any, error: Exception | None) -> None:
    """What is made of the finished site."""
