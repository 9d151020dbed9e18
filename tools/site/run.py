"""Runs Python blocks of generated pages and returns what they print, in one process for all."""

from __future__ import annotations

import contextlib
import io
import warnings
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
        warnings.showwarning = lambda text, kind, *_, **__: print(f"{kind.__name__}: {text}")
        try:
            exec(compile(code, title, "exec"), names)
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
    torch.set_default_dtype(torch.float32)
    pyro.clear_param_store()
    return out.getvalue().rstrip()
