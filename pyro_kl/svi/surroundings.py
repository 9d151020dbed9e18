"""What model and guide read from Python beside their arguments, and whether it has changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import chain
from operator import attrgetter, is_
from typing import Any

import numpy as np

from .differences import differences_in_words
from .environment import environment
from .places import Path, name_of
from .reads import LARGE_ARRAY, Walk
from .side_effects import SideEffects, find_side_effects
from .values import is_scalar, same, shown

__all__ = ["Surroundings", "Taken"]

_FORM = ("shape", "dtype", "device", "requires_grad")
_form_of = attrgetter(*_FORM)


class Surroundings:
    """What model and guide read from Python beside their arguments.

    These are variables of closures and modules that their code names, default arguments,
    attributes of objects, the functions that they call, and the same of these; code of libraries
    is not looked into. Scalars and containers of scalars are compared by value; tensors,
    functions, modules and other objects by identity, tensors also by shape, dtype, device and
    `requires_grad` (their numbers are inputs of a recorded step). Default dtype and device,
    autocast, Pyro's settings and its active handlers, and the options of the ELBO belong to the
    surroundings too.

    What cannot be seen: the clock, files, the environment, context variables, code for `eval`,
    and data inside the objects of libraries, such as a pandas table, that change in place. What
    is too large to be compared is told by `side_effects`.

    Example::

        surroundings = Surroundings(model, guide, elbo)
        taken = surroundings.take()
        ...
        if (difference := surroundings.difference(taken)) is not None:
            ...  # "`flag` of model was False and is True"
    """

    def __init__(self, model: Callable, guide: Callable, elbo: Any = None) -> None:
        self._functions = (model, guide)
        self._unread: set[Path] = set()
        self._environment = environment(elbo)

    def take(self) -> Taken:
        """What is there now; it keeps the objects alive."""
        return self._take(self._unread)

    def difference(self, taken: Taken) -> str | None:
        """The first difference between then and now, in words; None if there is none."""
        if taken.is_unchanged():
            return None
        now = self._take(taken.ignored)
        for difference in taken.differences(now):
            return difference
        vars(taken).update(vars(now))  # equal values in other objects: these are expected now
        return None

    def side_effects(self, run_once: Callable[[], object]) -> SideEffects:
        """Run model and guide, and find what they change by themselves in each run.

        What they change without reading it is not compared in what is taken from then on.

        Args:
            run_once: runs model and guide once; it is called one to four times, of which only the
                first moves torch's random generators.
        """
        found = find_side_effects(lambda: Walk(self._functions), run_once)
        self._unread = found.unread
        return found

    def _take(self, ignored: Collection[Path]) -> Taken:
        return Taken(Walk(self._functions, ignored), self._environment)


class Taken:
    """What was in the surroundings at one time, prepared for a fast comparison."""

    def __init__(self, walk: Walk, environment: tuple[tuple[str, Callable[[], Any]], ...]) -> None:
        self.ignored = walk.ignored
        self._places = walk.places
        self._readers = [holder.read() for holder, _ in walk.groups]
        self._expected = [
            value for holder, values in walk.groups for value in holder.expected(values)
        ]
        self._empty = walk.empty
        self._absent = walk.absent
        self._tensor_paths = [path for path, _ in walk.tensors]
        self._tensors = [tensor for _, tensor in walk.tensors]
        self._forms = list(map(_form_of, self._tensors))
        arrays = [(path, array) for path, array in walk.arrays if array.nbytes <= LARGE_ARRAY]
        self._array_paths = [path for path, _ in arrays]
        self._arrays = [array for _, array in arrays]
        self._numbers = list(map(np.ndarray.tobytes, self._arrays))
        self._environment_names = [name for name, _ in environment]
        self._environment = [read for _, read in environment]
        self._settings = [read() for read in self._environment]

    def is_unchanged(self) -> bool:
        """Whether everything is there as it was.

        This is called before every step: it compares identities in C, and looks at values only
        where another object is found.
        """
        try:
            return (
                (all(map(is_, self._read(), self._expected)) or self._has_equal_scalars())
                and not any(self._empty)
                and all(is_absent() for is_absent in self._absent)
                and list(map(_form_of, self._tensors)) == self._forms
                and [read() for read in self._environment] == self._settings
                and list(map(np.ndarray.tobytes, self._arrays)) == self._numbers
            )
        except (AttributeError, LookupError, ValueError, RuntimeError):  # something is gone
            return False

    def differences(self, now: Taken) -> Iterator[str]:
        """All differences from what is there now, in words."""
        settings = zip(self._environment_names, self._settings, now._settings, strict=True)
        for name, before, after in settings:
            if not same(before, after):
                yield f"{name} was {shown(before)} and is {shown(after)}"
        yield from differences_in_words(self._places, now._places)
        forms = dict(zip(now._tensor_paths, now._forms, strict=True))
        for path, form in zip(self._tensor_paths, self._forms, strict=True):
            for name, before, after in zip(_FORM, form, forms.get(path, form), strict=True):
                if before != after:
                    before, after = (_plain(value) for value in (before, after))
                    yield f"{name_of(path)} had {name} {before} and has {after}"
        numbers = dict(zip(now._array_paths, now._numbers, strict=True))
        for path, before in zip(self._array_paths, self._numbers, strict=True):
            if numbers.get(path, before) != before:
                yield f"the numbers of {name_of(path)} have changed"

    def _read(self) -> Iterator[Any]:
        return chain.from_iterable(read() for read in self._readers)

    def _has_equal_scalars(self) -> bool:
        """Whether the objects that are not the same are equal numbers, strings and the like.

        They are expected from now on, so that the next comparison is the fast one again.
        """
        found = list(self._read())
        if len(found) != len(self._expected):
            return False
        for index, (before, after) in enumerate(zip(self._expected, found, strict=True)):
            if before is not after:
                if not (is_scalar(before) and same(before, after)):
                    return False
                self._expected[index] = after
        return True


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, tuple) else value
