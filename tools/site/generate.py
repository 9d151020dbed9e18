"""Calls each generator of pages, before Sphinx reads its sources and after it has written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .api import write_api
from .command_line import write_command_line
from .families import write_families
from .llms import write_llms_txt
from .messages import write_messages
from .notebooks import copy_notebooks
from .pairs import write_pairs
from .structured import write_structured
from .tables import write_tables


def write_pages(root: Path) -> None:
    """Write the generated pages into docs/reference."""
    write_api(root)
    write_pairs(root)
    write_families(root)
    write_structured(root)
    write_tables(root)
    write_messages(root)
    write_command_line(root)


def finish(app: Any, error: Exception | None) -> None:
    """Add what is made of the finished pages."""
    if error is None:
        write_llms_txt(app)
        copy_notebooks(app)
