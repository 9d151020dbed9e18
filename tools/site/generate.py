"""Calls each generator of pages, before Sphinx reads its sources and after it has written."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
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

#: The slow ones first: they run in two processes.
GENERATORS = (
    write_structured,
    write_families,
    write_messages,
    write_tables,
    write_api,
    write_pairs,
    write_command_line,
)


def write_pages(root: Path) -> None:
    """Write the generated pages into docs/reference."""
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        for done in [pool.submit(write, root) for write in GENERATORS]:
            done.result()


def finish(app: Any, error: Exception | None) -> None:
    """Add what is made of the finished pages."""
    if error is None:
        write_llms_txt(app)
        copy_notebooks(app)
