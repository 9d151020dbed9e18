"""The walk from a model and a guide to every place that their Python code may read."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from functools import cached_property, partial
from io import IOBase
from itertools import count
from random import Random
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from pyro.poutine.messenger import Messenger
from torch.distributions import Distribution, Transform

from .attributes import called_methods, is_dunder, read_by_libraries, slots_of
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
    name_of,
)
from .titles import package_of, title_of
from .values import is_data, is_scalar
from .watched import is_watched

__all__ = ["Walk"]

DEPTH = 24  # steps from a function to a value; what is further away is compared by identity
LARGE = 1000  # elements of a container; those of a larger one are compared by identity
LARGE_ARRAY = 2**16  # bytes; the numbers of a larger array are not compared before every step

_CALLED = (FunctionType, BuiltinFunctionType, MethodType, partial)
_OF_MODELS = (torch.nn.Module, Distribution, Transform, Messenger)
_PASSED_ON = (*_CALLED, *_OF_MODELS)  # what the code of a library runs, or reads, for the user
_PARTS = ("_parameters", "_buffers", "_modules", "_pyro_params", "_pyro_samples")


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
        self.names = {"training", "forward"}
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
        self.not_compared: list[str] = []  # what is read and may change unseen
        self.states: list[tuple[Path, Any]] = []  # of generators of random numbers, of counts
        self._seen: dict[int, Any] = {}
        self._held: set[tuple[int, Any]] = set()
        self._classes: set[tuple[type, bool]] = set()
        self._titles: dict[str, Any] = {}

    def visit(self, value: Any, path: Path) -> None:
        """Go on from a value to the places that can be reached from it."""
        if is_watched(value) or value is END or (is_scalar(value) and not isinstance(value, Enum)):
            return
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value  # also keeps the object, hence its id
        if len(path) > DEPTH:
            self.not_compared.append(f"what is inside {name_of(path)}")
            return
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
            if place.key != "__class__":  # the class of an object is visited with the object
                self.visit(place.value, place.path)

    def _visit_function(self, function: FunctionType, path: Path) -> None:
        wrapped = getattr(function, "__wrapped__", None)
        if is_library_function(function, self.home):
            cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
            for name, cell in cells:
                value = cell_value(cell)
                is_users = not is_library_class(type(value), self.home)
                if is_users or isinstance(value, (*_PASSED_ON, tuple, list, dict)):
                    self.visit(value, (*path, f".{name}"))
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
            relative = f"{module.get('__package__')}.{name}".rstrip(".")
            imported = sys.modules.get(name) or sys.modules.get(relative)
            self.visit(imported, (self._title(name, imported),))
        self.visit(wrapped, (*path, ".__wrapped__"))

    def _visit_method(self, method: MethodType, path: Path) -> None:
        self.visit(method.__self__, (self._title(title_of(method.__self__), method.__self__),))
        self.visit(method.__func__, path)

    def _visit_partial(self, call: partial, path: Path) -> None:
        for name in ("func", "args", "keywords"):
            self.visit(getattr(call, name), (*path, f".{name}"))

    def _visit_wrapper(self, wrapper: Any, path: Path) -> None:
        for name in ("__func__", "fget", "func"):
            self.visit(getattr(wrapper, name, None), (*path, f".{name}"))

    def _visit_module(self, module: ModuleType, path: Path) -> None:
        if not is_library_module(module, self.home):
            self._hold(Items(vars(module), self._named(vars(module))), path)

    def _visit_class(self, cls: type, path: Path, constructed: bool = True) -> None:
        libraries = self._libraries_of(cls)
        for base in cls.__mro__:
            if base not in libraries and (base, constructed) not in self._classes:
                self._classes.add((base, constructed))
                named = [name for name in self._named(vars(base)) if name != "__init__"]
                keys = dict.fromkeys([*named, *called_methods(base, libraries, constructed)])
                here = (self._title(title_of(base), base),)
                self._hold(Items(vars(base), keys, partial(setattr, base)), here)

    def _visit_object(self, value: Any, path: Path) -> None:
        attributes = getattr(value, "__dict__", {})
        if is_library_class(type(value), self.home):
            self._visit_library_object(value, attributes, path)
        else:
            self._visit_user_object(value, attributes, path)
        self.visit(attributes.get("__wrapped__"), (*path, ".__wrapped__"))
        if isinstance(value, torch.nn.Module):
            self._hold(Attributes(value, ["__class__"]), path)
            self._hold(Items(attributes, ["training"]), path)
            for name in filter(attributes.__contains__, _PARTS):
                self._visit_container(attributes[name], (*path, f".{name}"), path)
            for name in ("_forward_hooks", "_forward_pre_hooks"):
                self._visit_container(attributes[name], (*path, f".{name}"))

    def _visit_library_object(self, value: Any, attributes: dict[str, Any], path: Path) -> None:
        if hasattr(type(value), "__next__") and not isinstance(value, IOBase):
            self.iterators.append(path)
        data = [name for name, item in attributes.items() if name[0] != "_" and is_data(item)]
        self._hold(Items(attributes, data), path)
        slots = {name: getattr(value, name, None) for name in slots_of(type(value))}
        read = {"forward"}
        if not isinstance(value, _OF_MODELS):  # a namespace of options
            read = self.names
            self._hold(Items(attributes, self._named(attributes)), path)
        self._hold_absent(attributes, read)
        called = [name for name, item in attributes.items() if isinstance(item, _CALLED)]
        self._hold(Items(attributes, called), path)
        for name, item in {**attributes, **slots}.items():
            # A tuple hides a module from torch: an autoguide keeps its model in one.
            parts = item if type(item) is tuple else (item,)
            if any(isinstance(part, _PASSED_ON) for part in parts):
                self.visit(item, (*path, f".{name}"))

    def _visit_user_object(self, value: Any, attributes: dict[str, Any], path: Path) -> None:
        cls, named = type(value), self._named(attributes)
        self._hold(Items(attributes, named), path)
        names = self.names.union(called_methods(cls, self._libraries_of(cls), constructed=False))
        self._hold_absent(attributes, names)
        read = read_by_libraries(cls, self._libraries_of(cls), list(attributes))
        self._hold(Items(attributes, [it for it in read if is_data(attributes[it])]), path)
        slots = [name for name in slots_of(cls) if name in self.names and hasattr(value, name)]
        self._hold(Attributes(value, slots), path)
        self._visit_class(cls, path, constructed=False)

    def _hold_absent(self, attributes: dict[str, Any], names: set[str]) -> None:
        """Enter that the other names are no attributes: a new one may hide that of a class."""
        if self.reads_all_attributes:
            self.absent.append(partial(attributes.keys().__eq__, frozenset(attributes)))
        else:
            others = names.difference(attributes)
            self.absent.append(partial(attributes.keys().isdisjoint, others))

    def _visit_container(self, value: Any, path: Path, of_module: Path | None = None) -> None:
        if not is_library_class(type(value), self.home):  # it may have attributes
            self._visit_object(value, path)
        here, holder = (*path, CONTENTS), Contents(value, of_module is not None)
        if here in self.ignored:
            return
        is_large = len(value) > LARGE
        contents: Any = holder.keys
        if isinstance(value, (set, frozenset)):
            contents = frozenset(value)
        elif is_large:
            contents = tuple(value.items() if isinstance(value, dict) else value)
        elif isinstance(value, dict):  # a key that a run itself enters is left out
            start = of_module or path
            entered = (key for key in value if (*start, holder.step(key)) in self.ignored)
            contents = value.keys() - entered
        self.places.append(Place(here, holder, None, value, contents))
        if not value:
            self.empty.append(value)
        elif is_large or isinstance(value, (set, frozenset)):
            elements = tuple(value.values() if isinstance(value, dict) else value)
            self.groups.append((holder, elements))
            if not (isinstance(value, (set, frozenset)) or all(map(is_scalar, elements))):
                what = f"what is inside the {len(value)} elements of {name_of(path)}"
                self.not_compared.append(what)
        else:
            self._hold(holder, of_module or path)

    def _visit_enum(self, value: Enum, path: Path) -> None:
        self._visit_class(type(value), path, constructed=False)

    def _visit_tuple(self, value: tuple, path: Path) -> None:
        self._visit_class(type(value), path, constructed=False)  # of a named tuple
        if len(value) > LARGE and not all(map(is_scalar, value)):
            self.not_compared.append(f"what is inside {name_of(path)} after {LARGE} elements")
        for index, item in enumerate(value[:LARGE]):
            self.visit(item, (*path, f"[{index}]"))

    def _visit_tensor(self, value: torch.Tensor, path: Path) -> None:
        self.tensors.append((path, value))

    def _visit_array(self, value: np.ndarray, path: Path) -> None:
        self.arrays.append((path, value))
        if value.nbytes > LARGE_ARRAY:
            self.not_compared.append(f"the numbers of {name_of(path)}, {value.nbytes} bytes,")

    def _visit_state(self, value: Any, path: Path) -> None:
        self.states.append((path, value))

    def _libraries_of(self, cls: type) -> list[type]:
        return [base for base in cls.__mro__ if is_library_class(base, self.home)]

    def _named(self, attributes: Any) -> list[str]:
        if self.reads_all_attributes:
            return [name for name in attributes if not is_dunder(name)]
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
    (Enum, Walk._visit_enum),
    ((list, dict, set, frozenset, deque), Walk._visit_container),
    (np.ndarray, Walk._visit_array),
    (
        (Random, np.random.Generator, np.random.RandomState, torch.Generator, count),
        Walk._visit_state,
    ),
)
