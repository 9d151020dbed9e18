"""Stand-ins for values that note whether they are read, while a function runs with them."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable
from typing import Any

from .places import Path
from .values import is_scalar

__all__ = ["Collecting", "ReadLog", "Watched", "is_watched", "path_of", "unwrap"]


class ReadLog:
    """Which places were read."""

    def __init__(self) -> None:
        self.paths: dict[Path, None] = {}
        self.open = True
        self._made: list[weakref.ref] = []

    def alive(self) -> list[Watched]:
        """Stand-ins that something still refers to."""
        return [watched for reference in self._made if (watched := reference()) is not None]


class Watched:
    """A stand-in for a value: numbers may be counted on, every other use is noted as a read.

    It is no subclass of int or float, because code in C reads the number of these without a call;
    an object that it does not know it must ask, or refuse. To ask for the class is no read:
    `nn.Module.__setattr__` does so with all that is assigned.
    """

    __slots__ = ("__weakref__", "_log", "_path", "_value")
    __array_ufunc__ = None  # NumPy then leaves arithmetic to this class

    def __init__(self, value: Any, path: Path, log: ReadLog) -> None:
        _set(self, "_value", value)
        _set(self, "_path", path)
        _set(self, "_log", log)
        log._made.append(weakref.ref(self))

    def __getattribute__(self, name: str) -> Any:
        value = _get(self, "_value")
        if name == "__class__":
            return type(value)
        _note(self)
        return getattr(value, name)

    def __next__(self) -> Any:  # of itertools.count: what it counts may be left unread
        return Watched(next(_get(self, "_value")), _get(self, "_path"), _get(self, "_log"))

    @classmethod
    def __torch_function__(
        cls, function: Callable, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return function(*map(_read, args), **{k: _read(v) for k, v in (kwargs or {}).items()})


class Collecting(Watched):
    """A stand-in for a container to which a function adds: to add is no read."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name in _ADDING:
            method = getattr(_get(self, "_value"), name)
            return lambda *args, **kwargs: method(
                *map(unwrap, args), **{key: unwrap(item) for key, item in kwargs.items()}
            )
        return Watched.__getattribute__(self, name)

    def __setitem__(self, key: Any, value: Any) -> None:
        _get(self, "_value")[_read(key)] = unwrap(value)

    def __iadd__(self, other: Any) -> Any:
        _set(self, "_value", operator.iadd(_get(self, "_value"), unwrap(other)))
        return self

    def __ior__(self, other: Any) -> Any:
        _set(self, "_value", operator.ior(_get(self, "_value"), unwrap(other)))
        return self


_ADDING = frozenset({"append", "appendleft", "extend", "extendleft", "insert", "add", "update"})


def is_watched(value: Any) -> bool:
    """Whether a value is a stand-in; the stand-in is not asked."""
    return type(value) is Watched or type(value) is Collecting


def unwrap(value: Any) -> Any:
    """The value itself, without stand-ins in it or in the tuples that it consists of."""
    if is_watched(value):
        return _get(value, "_value")
    if isinstance(value, (tuple, list)) and any(
        is_watched(part) or isinstance(part, tuple) for part in value
    ):
        parts = [unwrap(part) for part in value]
        if isinstance(value, list):
            value[:] = parts
            return value
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def path_of(value: Watched) -> Path:
    """The place that a stand-in, or the number that it was counted from, stands for."""
    return _get(value, "_path")


_get, _set = object.__getattribute__, object.__setattr__


def _note(watched: Watched) -> None:
    log = _get(watched, "_log")
    if log.open:
        log.paths[_get(watched, "_path")] = None


def _read(value: Any) -> Any:
    """The value behind a stand-in, noted as read."""
    if is_watched(value):
        _note(value)
    elif isinstance(value, (tuple, list)):
        return type(value)(map(_read, value)) if any(map(is_watched, value)) else value
    return unwrap(value)


def _forward(function: Callable) -> Callable:
    """A method that notes a read and then does what the value itself does."""

    def method(self: Watched, *args: Any, **kwargs: Any) -> Any:
        _note(self)
        return function(_get(self, "_value"), *map(_read, args), **kwargs)

    return method


def _count(function: Callable, reflected: bool = False) -> Callable:
    """A method for arithmetic: of numbers alone it is a stand-in again, else a read."""

    def method(self: Watched, *others: Any) -> Any:
        values = [_get(self, "_value"), *map(unwrap, others)]
        if reflected:
            values.reverse()
        if all(map(is_scalar, values)):
            return Watched(function(*values), _get(self, "_path"), _get(self, "_log"))
        for value in (self, *others):
            _read(value)
        return function(*values)

    return method


# Python looks for an operator's method in the class alone: each is entered there.
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor"):
    _function = getattr(operator, _name if hasattr(operator, _name) else f"{_name}_")
    setattr(Watched, f"__{_name}__", _count(_function))
    setattr(Watched, f"__r{_name}__", _count(_function, reflected=True))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(Watched, f"__{_name}__", _count(getattr(operator, _name)))
_COMPARED = ("lt", "le", "eq", "ne", "gt", "ge", "index", "matmul")
_ENTRIES = ("getitem", "setitem", "delitem", "contains")
for _name in (*_COMPARED, *_ENTRIES):
    setattr(Watched, f"__{_name}__", _forward(getattr(operator, _name)))
_BUILTINS = (
    bool, int, float, complex, len, hash, iter, str, repr, format, round, divmod, bytes, reversed,
    dir, setattr, delattr,
)  # fmt: skip
for _builtin in _BUILTINS:
    setattr(Watched, f"__{_builtin.__name__}__", _forward(_builtin))
_CALLS: dict[str, Callable] = {
    "call": lambda value, *args, **kwargs: value(*args, **kwargs),
    "enter": lambda value: value.__enter__(),
    "exit": lambda value, *error: value.__exit__(*error),
}
for _name, _function in _CALLS.items():
    setattr(Watched, f"__{_name}__", _forward(_function))
