"""Places that Python code reads: closure cells, entries of dictionaries, elements, attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

__all__ = [
    "CONTENTS",
    "END",
    "Attributes",
    "Cells",
    "Contents",
    "Holder",
    "Items",
    "Path",
    "Place",
]

Path = tuple[str, ...]  # the function or class that the way starts from, then the steps
CONTENTS = ""  # the last step of a path to what a container contains, as a whole

END = object()  # follows the contents of a container, so that a longer or a shorter one differs


class Holder:
    """Something that holds values under keys.

    `read` is what is called before every step: it returns the values in the order of `keys` and
    runs in C. It raises where a key is gone.
    """

    owner: Any
    keys: tuple[Any, ...]

    def read(self) -> Callable[[], Iterable[Any]]:
        """A function that returns the present values of all keys."""
        raise NotImplementedError

    def expected(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """What `read` returns if the values under the keys are these."""
        return values

    def get(self, key: Any) -> Any:
        """The value under a key; END if there is none."""
        raise NotImplementedError

    def put(self, key: Any, value: Any) -> None:
        """Replace the value under a key without running code of the owner."""
        raise NotImplementedError

    def without(self, keys: set[Any]) -> Holder:
        """The same holder, limited to its other keys."""
        raise NotImplementedError

    def step(self, key: Any) -> str:
        """How a message writes the key after the owner's name."""
        return f".{key}"


class Cells(Holder):
    """Variables of a closure."""

    def __init__(self, names: Sequence[str], cells: Sequence[Any]) -> None:
        self.owner = dict(zip(names, cells, strict=True))
        self.keys = tuple(names)

    def read(self) -> Callable[[], Iterable[Any]]:
        return partial(map, attrgetter("cell_contents"), tuple(self.owner.values()))

    def get(self, key: str) -> Any:
        return cell_value(self.owner[key])

    def put(self, key: str, value: Any) -> None:
        self.owner[key].cell_contents = value

    def without(self, keys: set[Any]) -> Holder:
        kept = [key for key in self.keys if key not in keys]
        return Cells(kept, [self.owner[key] for key in kept])


class Items(Holder):
    """Some entries of a dictionary: globals of a module, attributes of an object, of a class."""

    def __init__(self, owner: Any, keys: Iterable[Any], write: Callable | None = None) -> None:
        self.owner = owner
        self.keys = tuple(keys)
        self.write = write or owner.__setitem__

    def read(self) -> Callable[[], Iterable[Any]]:
        return partial(itemgetter(*_two(self.keys)), self.owner)

    def expected(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return _two(values)

    def get(self, key: Any) -> Any:
        return _lookup(self.owner, key)

    def put(self, key: Any, value: Any) -> None:
        self.write(key, value)

    def without(self, keys: set[Any]) -> Holder:
        return Items(self.owner, (key for key in self.keys if key not in keys), self.write)


class Contents(Holder):
    """All that a list, tuple, set or dictionary contains."""

    def __init__(self, owner: Any, of_module: bool = False) -> None:
        self.owner = owner
        self.keys = tuple(owner) if isinstance(owner, dict) else tuple(range(len(owner)))
        self.of_module = of_module

    def read(self) -> Callable[[], Iterable[Any]]:
        if isinstance(self.owner, dict):
            return partial(chain, self.owner, dict.values(self.owner), (END,))
        return partial(chain, self.owner, (END,))

    def expected(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*self.keys, *values, END) if isinstance(self.owner, dict) else (*values, END)

    def get(self, key: Any) -> Any:
        return _lookup(self.owner, key)

    def put(self, key: Any, value: Any) -> None:
        self.owner[key] = value

    def without(self, keys: set[Any]) -> Holder:
        kept = tuple(key for key in self.keys if key not in keys)
        return Items(self.owner, kept)

    def step(self, key: Any) -> str:
        return f".{key}" if self.of_module else f"[{key!r}]"


class Attributes(Holder):
    """Attributes that are not in a dictionary: of functions, and of objects with slots."""

    def __init__(self, owner: Any, keys: Iterable[str]) -> None:
        self.owner = owner
        self.keys = tuple(keys)

    def read(self) -> Callable[[], Iterable[Any]]:
        return partial(attrgetter(*_two(self.keys)), self.owner)

    def expected(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return _two(values)

    def get(self, key: str) -> Any:
        return getattr(self.owner, key, END)

    def put(self, key: str, value: Any) -> None:
        setattr(self.owner, key, value)

    def without(self, keys: set[Any]) -> Holder:
        return Attributes(self.owner, (key for key in self.keys if key not in keys))


class Place(NamedTuple):
    """One place and what was there."""

    path: Path
    holder: Holder
    key: Any
    value: Any
    contents: tuple[Any, ...] | None = None  # the keys of a container, or its elements


def name_of(path: Path) -> str:
    """How a message names a place: `config.flag` of model."""
    return f"`{''.join(path[1:]).lstrip('.') or path[0]}` of {path[0]}"


def _two(keys: tuple[Any, ...]) -> tuple[Any, ...]:
    """The keys, a single one twice: with one key, itemgetter returns the bare value."""
    return keys if len(keys) > 1 else keys * 2


def _lookup(owner: Any, key: Any) -> Any:
    """`owner[key]`, or END; a defaultdict makes no entry for it."""
    try:
        return dict.get(owner, key, END) if isinstance(owner, dict) else owner[key]
    except (KeyError, IndexError):
        return END


def cell_value(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the variable is not bound yet
        return END
