"""Runs Python blocks of generated pages and returns what they print, in one process for all."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import textwrap
import warnings
from collections.abc import Iterator
from typing import Any

import pyro
import torch


def printed(code: str, names: dict[str, Any] | None = None, title: str = "<page>") -> str:
    """What a block prints, the warnings that it raises, and the error that it ends with."""
    names = {} if names is None else names
    pyro.set_rng_seed(0)
    out = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(out):
        warnings.simplefilter("always")
        warnings.showwarning = lambda text, kind, *_, **__: print(_wrapped(kind, text))
        try:
            exec(compile(code, title, "exec"), names)
        except Exception as error:
            print(_wrapped(type(error), error))
    torch.set_default_dtype(torch.float32)
    pyro.clear_param_store()
    return out.getvalue().rstrip()


@contextlib.contextmanager
def empty_folder() -> Iterator[None]:
    """Work in an empty folder, where the blocks of a page may write files."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _wrapped(kind: type[Any], text: object) -> str:
    """A message of one long line at 80 columns."""
    lines = f"{kind.__name__}: {text}".splitlines()
    return "\n".join(textwrap.fill(line, 80, break_on_hyphens=False) for line in lines)
