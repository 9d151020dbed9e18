"""The files of the package pyro_kl, read without importing it: torch takes seconds."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def folder() -> Path:
    """The folder of the package pyro_kl."""
    spec = find_spec("pyro_kl")  # finds a package without running it
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def version() -> str:
    """The version of pyro_kl."""
    text = (folder() / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.*)"$', text, re.MULTILINE)
    assert found is not None
    return found[1]
