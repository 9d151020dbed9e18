"""What torch, Pyro and the ELBO read beside the arguments of a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import pyro
import torch
from pyro.poutine.runtime import _PYRO_STACK

__all__ = ["environment"]


def environment(elbo: Any = None) -> tuple[tuple[str, Callable[[], Any]], ...]:
    """What is read, in words, and a function that reads it.

    Args:
        elbo: its options are read too.

    Not in it, because it does not change the operations of a step: the modes of gradients (a step
    sets its own), the switches for validation, the number of threads, the precision of matrix
    products, which a recorded operation reads when it runs.
    """
    return (
        ("the type and the device of new tensors", _defaults),
        *(
            (f"autocast on {device}", partial(read, device))
            for device in ("cpu", "cuda")
            for read in (torch.is_autocast_enabled, torch.get_autocast_dtype)
        ),
        ("the handlers of Pyro around the step", partial(tuple, _PYRO_STACK)),
        *_settings_of_pyro(),
        *(
            (f"`{name}` of the ELBO", partial(getattr, elbo, name))
            for name in getattr(elbo, "__dict__", ())
            if name[0] != "_" and name != "step_count"  # schedules are inputs of a step
        ),
    )


def _defaults() -> tuple[torch.dtype, torch.device]:
    new = torch.empty(0)  # torch.set_default_device and `with torch.device(...)` are both in it
    return new.dtype, new.device


def _settings_of_pyro() -> list[tuple[str, Callable[[], Any]]]:
    """Pyro's settings that change numbers; `pyro.settings.get` would import at each call."""
    found: list[tuple[str, Callable[[], Any]]] = []
    for name, (module, attribute, _) in sorted(pyro.settings._REGISTRY.items()):
        if not name.startswith("validate_"):
            *parents, last = attribute.split(".")
            owner = import_module(module)
            for parent in parents:
                owner = getattr(owner, parent)
            found.append((f"Pyro's setting {name}", partial(getattr, owner, last)))
    return found
