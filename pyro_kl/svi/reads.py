"""The walk from a model and a guide to every place that their Python code may read."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from io import IOBase
from itertools import count
from random import Random
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from pyro.poutine.messenger import Messenger
from torch.distributions import Distribution, Transform

from .code_names import is_library_class, is_library_function, is_library_module, names_in
from .places import (
    CONTENTS,
    END,
    Attributes,
    Cells,
    Contents,
    Holder,
    Items,
    Path,
    Place,
    cell_value,
)
from .titles import package_of, title_of
from .values import is_data, is_scalar
from .watched import is_watched

__all__ = ["Walk"]

DEPTH = 24  # steps from a function to a value; what is further away is compared by identity
LARGE = 1000  # elements of a container; those of a larger one are compared by identity
LARGE_ARRAY = 2**16  # bytes; the numbers of a larger array are not compared before every step

_PASSED_ON = (  # what a library's object runs, or reads, for the user
    FunctionType, MethodType, partial, torch.nn.Module, Distribution, Transform, Messenger,
)  # fmt: skip
_PARTS = ("_parameters", "_buffers", "_modules", "_pyro_params", "_pyro_samples")
_NOT_CALLED = {"__init__", "__new__", "__repr__", "__str__", "__del__", "__init_subclass__"}


class Walk:
    """All places that the code of the functions may read, with their present values.

    Args:
        functions: model and guide.
        ignored: the paths of places that are left out.
    """

    def __init__(self, functions: Iterable[Any], ignored: Iterable[Path] = ()) -> None:
        functions = tuple(functions)
        self.home = frozenset(map(package_of, functions))
        self.ignored = frozenset(ignored)
        self.names = {"training"}
        self.reads_all_attributes = False
        known = None
        while known != (known := (len(self.names), self.reads_all_attributes)):
            # The code of functions that are found late may name attributes of objects seen early.
            self._start()
            for function in functions:
                self.visit(function, (self._title(title_of(function), function),))

    def _start(self) -> None:
        self.places: list[Place] = []
        self.groups: list[tuple[Holder, tuple[Any, ...]]] = []  # what is read, and its values
        self.empty: list[Any] = []  # containers that are empty
        self.absent: list[Callable[[], bool]] = []  # whether attributes still do not exist
        self.tensors: list[tuple[Path, torch.Tensor]] = []
        self.arrays: list[tuple[Path, np.ndarray]] = []
        self.iterators: list[Path] = []
        self.states: list[tuple[Path, Any]] = []  # of generators of random numbers, of counts
        self._seen: dict[int, Any] = {}
        self._held: set[tuple[int, Any]] = set()
        self._classes: set[tuple[type, bool]] = set()
        self._titles: dict[str, Any] = {}

    def visit(self, value: Any, path: Path) -> None:
        """Go on from a value to the places that can be reached from it."""
        if is_watched(value) or is_scalar(value) or value is END:
            return
        if id(value) in self._seen or len(path) > DEPTH:
            return
        self._seen[id(value)] = value  # also keeps the object, hence its id
        for classes, visit in _VISITS:
            if isinstance(value, classes):
                visit(self, value, path)
                return
        self._visit_object(value, path)

    def _hold(self, holder: Holder, path: Path) -> None:
        """Enter the places of a holder, and visit their values."""
        keep, places = [], []
        for key in holder.keys:
            owner = holder.owner[key] if isinstance(holder, Cells) else holder.owner
            here = (*path, holder.step(key))
            if (id(owner), key) in self._held or here in self.ignored:
                continue
            self._held.add((id(owner), key))
            value = holder.get(key)
            if value is END:  # a variable that is not bound yet
                continue
            keep.append(key)
            places.append(Place(here, holder, key, value))
        if len(keep) < len(holder.keys):
            holder = holder.without(set(holder.keys) - set(keep))
        if places:
            self.places += places
            self.groups.append((holder, tuple(place.value for place in places)))
        for place in places:
            self.visit(place.value, place.path)

    def _visit_function(self, function: FunctionType, path: Path) -> None:
        wrapped = getattr(function, "__wrapped__", None)
        if is_library_function(function, self.home):
            cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
            for name, cell in cells:  # it may call a function of the user
                self.visit(cell_value(cell), (*path, f".{name}"))
            self.visit(wrapped, (*path, ".__wrapped__"))
            return
        path = (self._title(title_of(function), function),)
        code, names = function.__code__, names_in(function.__code__)
        self.names |= names.attributes
        self.reads_all_attributes |= names.reads_computed_names
        self._hold(Attributes(function, ("__code__", "__defaults__", "__kwdefaults__")), path)
        self._hold(Cells(code.co_freevars, function.__closure__ or ()), path)
        module = function.__globals__
        read = {*names.globals, *(names.attributes if "globals" in names.globals else ())}
        self._hold(Items(module, (name for name in module if name in read)), path)
        self._hold(Items(vars(function), self._named(vars(function))), path)
        for name in names.imports:
            imported = sys.modules.get(name) or sys.modules.get(
                f"{module.get('__package__')}.{name}"
            )
            self.visit(imported, (self._title(name, imported),))
        self.visit(wrapped, (*path, ".__wrapped__"))

    def _visit_method(self, method: MethodType, path: Path) -> None:
        self.visit(method.__self__, (self._title(title_of(method.__self__), method.__self__),))
        self.visit(method.__func__, path)

    def _visit_partial(self, call: partial, path: Path) -> None:
        parts: dict[str, Any] = {"func": call.func}
        parts |= {f"args[{index}]": value for index, value in enumerate(call.args)}
        parts |= {f"keywords[{name!r}]": value for name, value in call.keywords.items()}
        for name, part in parts.items():
            self.visit(part, (*path, f".{name}"))

    def _visit_wrapper(self, wrapper: Any, path: Path) -> None:
        for name in ("__func__", "fget", "func"):
            self.visit(getattr(wrapper, name, None), (*path, f".{name}"))

    def _visit_module(self, module: ModuleType, path: Path) -> None:
        if not is_library_module(module, self.home):
            self._hold(Items(vars(module), self._named(vars(module))), path)

    def _visit_class(self, cls: type, path: Path, constructed: bool = True) -> None:
        libraries = [base for base in cls.__mro__ if is_library_class(base, self.home)]
        for base in cls.__mro__:
            if base in libraries:
                continue
            if (base, constructed) in self._classes:
                continue
            self._classes.add((base, constructed))
            path = (self._title(title_of(base), base),)
            called = [
                name
                for name, value in vars(base).items()
                if isinstance(value, (FunctionType, staticmethod, classmethod, property))
                and (any(hasattr(library, name) for library in libraries) or _is_dunder(name))
                and (name not in _NOT_CALLED or (constructed and name == "__init__"))
            ]
            named = dict.fromkeys([*self._named(vars(base)), *called])
            keys = [key for key in named if key not in _NOT_CALLED or key in called]
            self._hold(Items(vars(base), keys, partial(setattr, base)), path)

    def _visit_object(self, value: Any, path: Path) -> None:
        cls, attributes = type(value), getattr(value, "__dict__", {})
        if is_library_class(cls, self.home):
            if hasattr(cls, "__next__") and not isinstance(value, IOBase):
                self.iterators.append(path)
            data = [name for name, item in attributes.items() if name[0] != "_" and is_data(item)]
            self._hold(Items(attributes, data), path)
            for name, item in list(attributes.items()):
                # A tuple hides a module from torch: an autoguide keeps its model in one.
                parts = item if isinstance(item, tuple) else (item,)
                if any(
                    isinstance(part, _PASSED_ON) and not self._is_library(part) for part in parts
                ):
                    self.visit(item, (*path, f".{name}"))
        else:
            named = self._named(attributes)
            self._hold(Items(attributes, named), path)
            self.absent.append(partial(attributes.keys().isdisjoint, self.names.difference(named)))
            slots = [
                name for base in cls.__mro__ for name in _slots_of(base) if name in self.names
            ]
            self._hold(Attributes(value, (name for name in slots if hasattr(value, name))), path)
            self._visit_class(cls, path, constructed=False)
        self.visit(attributes.get("__wrapped__"), (*path, ".__wrapped__"))
        if isinstance(value, torch.nn.Module):
            self._hold(Items(attributes, ["training"]), path)
            for name in filter(attributes.__contains__, _PARTS):
                self._visit_container(attributes[name], (*path, f".{name}"), path)
            for name in ("_forward_hooks", "_forward_pre_hooks"):
                self._visit_container(attributes[name], (*path, f".{name}"))

    def _visit_container(self, value: Any, path: Path, of_module: Path | None = None) -> None:
        here, holder = (*path, CONTENTS), Contents(value, of_module is not None)
        if here in self.ignored:
            return
        contents = _contents(value)
        if isinstance(value, dict):  # a key that a run itself enters is left out
            contents = tuple(
                key for key in contents if (*path, holder.step(key)) not in self.ignored
            )
        self.places.append(Place(here, holder, None, value, contents))
        if not value:
            self.empty.append(value)
        elif len(value) > LARGE or isinstance(value, (set, frozenset)):
            self.groups.append(
                (holder, tuple(value.values() if isinstance(value, dict) else value))
            )
        else:
            self._hold(holder, of_module or path)

    def _visit_tuple(self, value: tuple, path: Path) -> None:
        for index, item in enumerate(value[:LARGE]):
            self.visit(item, (*path, f"[{index}]"))

    def _visit_tensor(self, value: torch.Tensor, path: Path) -> None:
        self.tensors.append((path, value))

    def _visit_array(self, value: np.ndarray, path: Path) -> None:
        self.arrays.append((path, value))

    def _visit_state(self, value: Any, path: Path) -> None:
        self.states.append((path, value))

    def _is_library(self, value: Any) -> bool:
        return isinstance(value, FunctionType) and is_library_function(value, self.home)

    def _named(self, attributes: Any) -> list[str]:
        if self.reads_all_attributes:
            return [name for name in attributes if not _is_dunder(name)]
        return [name for name in attributes if name in self.names]

    def _title(self, name: str, thing: Any) -> str:
        """A name for messages; two things never have the same one."""
        thing = getattr(thing, "__func__", thing)
        number, title = 1, name
        while self._titles.setdefault(title, thing) is not thing:
            number += 1
            title = f"{name} ({number})"
        return title


_VISITS: tuple[tuple[Any, Callable[[Walk, Any, Any], None]], ...] = (
    (torch.Tensor, Walk._visit_tensor),
    (FunctionType, Walk._visit_function),
    (MethodType, Walk._visit_method),
    (partial, Walk._visit_partial),
    ((staticmethod, classmethod, property, cached_property), Walk._visit_wrapper),
    (ModuleType, Walk._visit_module),
    (type, Walk._visit_class),
    (tuple, Walk._visit_tuple),
    ((list, dict, set, frozenset, deque), Walk._visit_container),
    (np.ndarray, Walk._visit_array),
    (
        (Random, np.random.Generator, np.random.RandomState, torch.Generator, count),
        Walk._visit_state,
    ),
)


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _slots_of(cls: type) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _contents(container: Any) -> Any:
    """What is compared of a container as a whole: keys, length and elements of a set."""
    if isinstance(container, dict) and len(container) > LARGE:
        return tuple(container.items())
    return frozenset(container) if isinstance(container, (set, frozenset)) else tuple(container)
