"""The documentation's tables are those of the registry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("command", ["pairs", "classes"])
def test_table_is_current(command):
    """A process of its own: other tests declare classes that the table must not have."""
    made = subprocess.run(
        [sys.executable, "-m", "tools.tables", command],
        capture_output=True,
        text=True,
        check=True,
        cwd=DOCS.parent,
    ).stdout
    stored = (DOCS / f"{command}.md").read_text()
    assert made.rstrip("\n") == stored.rstrip("\n"), "run `make docs`"
