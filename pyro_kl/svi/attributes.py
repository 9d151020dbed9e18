"""Which attributes of an object the code of its classes may read, beside those that it names."""

from __future__ import annotations

from collections.abc import Sequence
from types import FunctionType

import torch
from pyro.nn import PyroModule

from .code_names import names_in

__all__ = ["called_methods", "is_dunder", "read_by_libraries", "slots_of"]

# They read no attribute that a user has set, but those which the walk enters by itself.
_PLAIN = (object, torch.nn.Module, PyroModule)
_NOT_CALLED = {"__new__", "__repr__", "__str__", "__del__", "__init_subclass__"}


def is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def slots_of(cls: type) -> list[str]:
    """The attributes of a class's objects that are not in a dictionary."""
    slots = [vars(base).get("__slots__", ()) for base in cls.__mro__]
    return [name for each in slots for name in ((each,) if isinstance(each, str) else each)]


def called_methods(cls: type, libraries: Sequence[type], constructed: bool) -> list[str]:
    """The methods of a class that run without being named in the user's code.

    Args:
        cls: the class.
        libraries: those of its bases that belong to libraries: they call what it overrides, as
            `torch.nn.Module` calls `forward`.
        constructed: whether the code makes objects of the class.
    """
    return [
        name
        for name, value in vars(cls).items()
        if isinstance(value, (FunctionType, staticmethod, classmethod, property))
        and (is_dunder(name) or any(hasattr(library, name) for library in libraries))
        and name not in _NOT_CALLED
        and (constructed or name != "__init__")
    ]


def read_by_libraries(cls: type, libraries: Sequence[type], names: Sequence[str]) -> list[str]:
    """Those attributes of an object of a user's class that the code of its libraries may read.

    Args:
        cls: the class.
        libraries: those of its bases that belong to libraries.
        names: the attributes.
    """
    libraries = [base for base in libraries if base not in _PLAIN]
    if not issubclass(cls, torch.nn.Module):
        known = any(base.__module__ not in ("builtins", "abc", "typing") for base in libraries)
        return [name for name in names if known and name[0] != "_"]
    functions = (value for base in libraries for value in vars(base).values())
    read = [names_in(it.__code__).attributes for it in functions if isinstance(it, FunctionType)]
    return [name for name in names if any(name in each for each in read)]
