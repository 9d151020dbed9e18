"""What a run of Python code can change, at one moment, and how to put it back."""

from __future__ import annotations

import pickle
import random
from collections import deque
from collections.abc import Callable
from copy import copy
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch

from .differences import changed
from .places import CONTENTS, Cells, Path, Place, name_of
from .reads import Walk

__all__ = ["Changes", "Moment", "Saved"]

SMALL = 2**20  # bytes; a larger tensor or array that a run changes in place is not put back


class Changes(NamedTuple):
    """What differs from one moment to another."""

    places: list[Place]  # as they are at the later moment, without what is inside another one
    sources: list[str]  # of random numbers
    in_place: list[Path]  # tensors and arrays whose numbers differ


class Moment:
    """All places, random states and numbers of tensors and arrays at one moment."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.states = {source.name: source.get() for source in _sources(walk)}
        self.counts = {path: repr(it) for path, it in walk.states if isinstance(it, count)}
        values: list[tuple[Path, Any]] = [*walk.tensors, *walk.arrays]
        self.numbers = {path: _numbers_of(value) for path, value in values}

    def changes(self, after: Moment) -> Changes:
        """What differs at a later moment."""
        differing = {old.path: new for old, new in changed(self.walk.places, after.walk.places)}
        for place in self.walk.places:
            if self.counts.get(place.path) != after.counts.get(place.path):
                differing[place.path] = place
        replaced = {path for path in differing if path[-1] != CONTENTS}

        def is_inside_another(path: Path) -> bool:
            return any(path[:end] in replaced for end in range(1, len(path)))

        places = [
            place
            for path, place in differing.items()
            if place is not None and not is_inside_another(path)
        ]
        sources = [
            name
            for name, state in self.states.items()
            if pickle.dumps(state) != pickle.dumps(after.states.get(name))
        ]
        in_place = [
            path
            for path, numbers in self.numbers.items()
            if not (path in replaced or is_inside_another(path))
            and numbers != after.numbers.get(path, numbers)
        ]
        return Changes(places, sources, in_place)


class Saved:
    """What is needed to put everything back to what it is at one moment."""

    def __init__(self, moment: Moment) -> None:
        walk = moment.walk
        self._states = moment.states
        self._sources = _sources(walk)
        self._places = {place.path: place for place in walk.places}
        self._contents = {
            place.path: copy(place.value) for place in walk.places if place.contents is not None
        }
        self._arrays = {
            path: (array, array.copy()) for path, array in walk.arrays if _is_small(array)
        }
        self._tensors = {
            path: (tensor, tensor.detach().clone())
            for path, tensor in walk.tensors
            if _is_small(tensor)
        }

    def restore(self, changes: Changes) -> None:
        """Put back what has changed."""
        for now in changes.places:
            place = self._places.get(now.path)
            if place is None:  # it did not exist
                if isinstance(now.holder.owner, dict) and not isinstance(now.holder, Cells):
                    now.holder.owner.pop(now.key, None)
            elif place.contents is None:
                place.holder.put(place.key, place.value)
            else:
                _refill(place.value, self._contents[place.path])
        for path in changes.in_place:
            if path in self._arrays:
                array, numbers = self._arrays[path]
                array[...] = numbers
            if path in self._tensors:
                tensor, values = self._tensors[path]
                with torch.no_grad():
                    tensor.copy_(values)
        for source in self._sources:
            if source.name in changes.sources:
                source.set(self._states[source.name])


class _Source(NamedTuple):
    """A generator of random numbers that is not torch's own."""

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], Any]


def _sources(walk: Walk) -> list[_Source]:
    sources = [
        _Source("Python's module random", random.getstate, random.setstate),
        _Source("NumPy's global generator", np.random.get_state, np.random.set_state),
    ]
    for path, it in walk.states:
        if isinstance(it, np.random.Generator):
            bits = it.bit_generator
            get, put = partial(getattr, bits, "state"), partial(setattr, bits, "state")
            sources.append(_Source(name_of(path), get, put))
        elif isinstance(it, random.Random):
            sources.append(_Source(name_of(path), it.getstate, it.setstate))
        elif not isinstance(it, count):
            sources.append(_Source(name_of(path), it.get_state, it.set_state))
    return sources


def _is_small(value: torch.Tensor | np.ndarray) -> bool:
    """Whether the numbers are compared and put back: large ones are not, nor sparse ones."""
    if isinstance(value, torch.Tensor) and (
        value.layout is not torch.strided or value.is_meta or value.is_nested
    ):
        return False
    return value.nbytes <= SMALL


def _numbers_of(value: torch.Tensor | np.ndarray) -> tuple[bytes, int]:
    """The numbers of a tensor or an array, and how often the tensor was written to.

    Both are needed: batch normalisation does not tell torch that it writes to its running mean,
    and an iteration that has converged writes the same numbers until the parameters change.
    """
    if isinstance(value, np.ndarray):
        return value.tobytes() if _is_small(value) else b"", 0
    writes = 0 if value.is_inference() else value._version
    if not _is_small(value):
        return b"", writes
    value = value.detach().cpu().resolve_conj().resolve_neg()
    if value.is_floating_point() and value.itemsize < 4:
        value = value.float()  # NumPy has no bfloat16
    return value.numpy().tobytes(), writes


def _refill(container: Any, contents: Any) -> None:
    if isinstance(container, list):
        container[:] = contents
    else:
        container.clear()
        getattr(container, "extend" if isinstance(container, deque) else "update")(contents)
