"""What a name in an expression means: a class of Pyro's, or a class of the user's by its path."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from inspect import isclass, ismodule
from typing import Any

import pyro.distributions
from torch.distributions import Distribution, Transform
from torch.distributions.constraints import Constraint

from ..refused import did_you_mean
from .mistake import Mistake
from .values import CONSTANTS, FUNCTIONS

#: Short names of modules, as users import them.
_MODULES = {
    "dist": "pyro.distributions",
    "transforms": "pyro.distributions.transforms",
    "constraints": "pyro.distributions.constraints",
}
#: Modules whose numbers and functions may be written with the module's name.
_OF_NUMBERS = ("torch", "math")


@cache
def known() -> Mapping[str, Any]:
    """Everything that has a name without a path."""
    classes = {
        name: value
        for module, base in (
            (pyro.distributions.transforms, Transform),
            (pyro.distributions, Distribution),
        )
        for name, value in vars(module).items()
        if isclass(value) and issubclass(value, base)
    }
    return {**classes, **FUNCTIONS, **CONSTANTS}


def meaning(name: str, at: ast.AST) -> Any:
    """The class, function, number or constraint that a name means.

    Args:
        name: one name, or a path with dots.
        at: the place of the name, for errors.

    Raises:
        Mistake: there is none, or what is there is none of these.
    """
    head, _, rest = name.partition(".")
    if not rest:
        if name not in known():
            hint = did_you_mean(name, known(), "a class of your own is written with its module")
            raise Mistake(f"{name!r} is not known here; {hint}", at)
        return known()[name]
    if head in _OF_NUMBERS and (rest in FUNCTIONS or rest in CONSTANTS):
        return known()[rest]
    if head in known():
        raise Mistake(f"{head} has no {rest!r}: write its arguments first, {head}(...)", at)
    found = _imported(f"{_MODULES.get(head, head)}.{rest}", at)
    classes = (Distribution, Transform, Constraint)
    if isinstance(found, Constraint) or (isclass(found) and issubclass(found, classes)):
        return found
    raise Mistake(f"{name} is no class of distributions or of transforms", at)


def _imported(path: str, at: ast.AST) -> Any:
    """What a path with dots leads to, through modules and classes; imports the modules.

    Raises:
        Mistake: there is nothing, or a module cannot be imported.
    """
    first, *others = path.split(".")
    found, so_far = _module(first, at), first
    for part in others:
        so_far = f"{so_far}.{part}"
        if hasattr(found, part):
            found = getattr(found, part)
        elif ismodule(found) and hasattr(found, "__path__"):
            found = _module(so_far, at, inside=found)
        else:
            hint = did_you_mean(part, vars(found), "") if hasattr(found, "__dict__") else ""
            raise Mistake(f"there is no {so_far}{hint and '; '}{hint}", at)
        if not (ismodule(found) or isclass(found) or isinstance(found, Constraint)):
            raise Mistake(f"{so_far} is no class of distributions or of transforms", at)
    return found


def _module(name: str, at: ast.AST, inside: Any = None) -> Any:
    try:
        with _current_folder_on_path():
            return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise Mistake(f"importing {name} fails: {error}", at) from None
        hint = did_you_mean(name.rpartition(".")[2], vars(inside), "") if inside else ""
        what = f"there is no {name}" if inside else f"there is no class or module {name!r}"
        raise Mistake(f"{what}{hint and '; '}{hint}", at) from None
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is run
        raise Mistake(f"importing {name} fails: {type(error).__name__}: {error}", at) from None


@contextmanager
def _current_folder_on_path() -> Iterator[None]:
    """Find the user's modules in the current folder too, after all others."""
    before = list(sys.path)
    sys.path.append(os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before
