"""The files of the package pyro_kl, read without importing it: torch takes seconds."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any


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


@cache
def text_module() -> Any:
    """The module `pyro_kl.results.text`, run alone: it needs the standard library only."""
    spec = spec_from_file_location(f"{__package__}.text_in_columns", folder() / "results/text.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
