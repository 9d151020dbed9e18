"""What a run of model and guide changes in Python by itself, and whether it reads it again."""

from __future__ import annotations

import gc
import pickle
import random
from collections import deque
from collections.abc import Callable
from copy import copy
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch

from .differences import changed
from .places import CONTENTS, Cells, Path, Place, name_of
from .reads import Walk
from .set_up import generators_kept
from .values import is_scalar
from .watched import Collecting, ReadLog, Watched, path_of, unwrap

__all__ = ["SideEffects", "find_side_effects"]

RUNS = 3  # what only the first runs change is a cache
SMALL = 2**20  # bytes; a larger tensor or array that a run changes in place is not put back


class SideEffects(NamedTuple):
    """What a run changes by itself."""

    refusals: list[str]  # why a recorded step would not do what a run does
    notices: list[str]  # what a recorded step leaves out
    unread: set[Path]  # places that each run changes and none reads


def find_side_effects(take: Callable[[], Walk], run_once: Callable[[], object]) -> SideEffects:
    """Run model and guide a few times, and compare what is in Python before and after.

    A place that every run changes is then replaced by a stand-in that notes whether it is read:
    a number may be counted on (`n += 1`), a list may be added to, everything may be overwritten.

    Afterwards each place that every run changes has the value from before the first run, and the
    random states of Python and NumPy are the earlier ones. What only a first run changes stays: a
    cache that is filled now is filled. An iterator such as `itertools.count` has advanced once for
    each run.

    Args:
        take: walks over the places.
        run_once: runs model and guide once. The first call is left to move torch's random
            generators, the others have draws of their own and move nothing.

    Returns:
        Refusals, notices, and the places that need not be compared.
    """
    first = before = _Moment(take())
    refusals = [
        f"{path[0]} reads the iterator {_short(path)}, which gives other values to each run"
        for path in first.walk.iterators
    ]
    if refusals:
        return SideEffects(refusals, [], set())
    saved = _Saved(first)
    for number in range(RUNS):
        if number:
            _run_with_other_draws(run_once, number)
        else:
            run_once()
        after = _Moment(take())
        pairs, states, in_place = before.changes(after)
        if not (pairs or states or in_place):
            return SideEffects([], [], set())
        before = after
    places = [place for _, place in pairs]
    counters = {place.path for place in places if _only_counts(place)}
    read = _find_reads(places, take, run_once)
    saved.restore(places, states, in_place)
    refusals = [
        *(f"a run draws from {name}, which a recorded step would not do" for name in states),
        *(f"a run changes {name_of(path)} in place, which a recorded step would not do"
          for path in in_place),
        *(f"{path[0]} reads {_short(path)}, which it changes itself in each run" for path in read),
    ]  # fmt: skip
    unread = {place.path for place in places} - set(read)
    kept = ", ".join(name_of(place.path) for place in places if place.path in unread - counters)
    notices = [
        "Python side effects of model and guide do not happen in compiled steps: "
        f"{kept} keeps the value of the recorded step"
    ]
    return SideEffects(refusals, notices if kept else [], unread)


class _Moment:
    """All places at one time, with what a run can change without replacing an object."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.states: dict[str, Any] = {
            "Python's module random": random.getstate(),
            "NumPy's global generator": np.random.get_state(),  # noqa: NPY002
        }
        self.counts: dict[Path, str] = {}
        for path, generator in walk.states:
            if isinstance(generator, count):
                self.counts[path] = repr(generator)
            else:
                self.states[name_of(path)] = _state_of(generator)
        values: list[tuple[Path, Any]] = [*walk.tensors, *walk.arrays]
        self.numbers = {path: _numbers_of(value) for path, value in values}

    def changes(self, after: _Moment) -> tuple[list[tuple[Place, Place]], list[str], list[Path]]:
        """Places, random states, and tensors and arrays in place that differ afterwards."""
        differing = {
            old.path: (old, new) for old, new in changed(self.walk.places, after.walk.places)
        }
        for old in self.walk.places:
            if old.path in self.counts and self.counts[old.path] != after.counts.get(old.path):
                differing[old.path] = old, old
        replaced = {path for path in differing if path[-1] != CONTENTS}
        pairs = [
            (old, new)
            for path, (old, new) in differing.items()
            if new is not None and replaced.isdisjoint(_prefixes(path))
        ]
        states = [
            name
            for name, state in self.states.items()
            if pickle.dumps(state) != pickle.dumps(after.states.get(name))
        ]
        in_place = [
            path
            for path, numbers in self.numbers.items()
            if replaced.isdisjoint([*_prefixes(path), path])
            and numbers != after.numbers.get(path, numbers)
        ]
        return pairs, states, in_place


class _Saved:
    """What is needed to put places back."""

    def __init__(self, moment: _Moment) -> None:
        self.moment = moment
        self.places = {place.path: place for place in moment.walk.places}
        self.contents = {
            path: copy(place.value)
            for path, place in self.places.items()
            if place.contents is not None
        }
        self.arrays = {
            path: (array, array.copy())
            for path, array in moment.walk.arrays
            if array.nbytes <= SMALL
        }
        self.tensors = {
            path: (tensor, tensor.detach().clone())
            for path, tensor in moment.walk.tensors
            if isinstance(moment.numbers[path], bytes)
        }

    def restore(self, places: list[Place], states: list[str], in_place: list[Path]) -> None:
        for now in places:
            place = self.places.get(now.path)
            if place is None:  # the first run has made it
                if isinstance(now.holder.owner, dict) and not isinstance(now.holder, Cells):
                    now.holder.owner.pop(now.key, None)
            elif place.contents is None:
                place.holder.put(place.key, place.value)
            else:
                _refill(place.value, self.contents[place.path])
        for path in in_place:
            if path in self.arrays:
                array, numbers = self.arrays[path]
                array[...] = numbers
            if path in self.tensors:
                with torch.no_grad():
                    tensor, values = self.tensors[path]
                    tensor.copy_(values)
        generators = {name_of(path): generator for path, generator in self.moment.walk.states}
        for name in states:
            _set_state(generators.get(name), name, self.moment.states[name])


def _find_reads(
    places: list[Place], take: Callable[[], Walk], run_once: Callable[[], object]
) -> list[Path]:
    """The paths of those places that a run reads, found by a run with stand-ins in them."""
    log = ReadLog()
    now = take().places
    for place in places:
        kind, targets = Watched, [place]
        if place.contents is not None:
            kind = Collecting
            targets = [p for p in now if p.value is place.value and p.contents is None]
        if not targets:  # an element of a tuple cannot be replaced
            log.paths[place.path] = None
        for target in targets:
            target.holder.put(target.key, kind(place.value, place.path, log))
    try:
        _run_with_other_draws(run_once, RUNS)
    except Exception:  # code in C does not know a stand-in: it would have read it
        log.paths = log.paths or dict.fromkeys(place.path for place in places)
    finally:
        log.open = False
        _take_back(take)
    if log.alive():
        gc.collect()
    # Something that the walk does not reach keeps a number: who reads it there is not known.
    return [*log.paths | {path_of(watched): None for watched in log.alive()}]


def _run_with_other_draws(run_once: Callable[[], object], seed: int) -> None:
    """Run once more; with the same draws, a draw that is kept would seem to be unchanged."""
    with generators_kept():
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        run_once()


def _take_back(take: Callable[[], Walk]) -> None:
    """Replace the stand-ins by their values; a list is looked into once it is a list again."""
    found = True
    while found:
        found = False
        for place in take().places:
            value = place.value if place.contents is None else None
            if (own := unwrap(value)) is not value:
                place.holder.put(place.key, own)
                found = True


def _only_counts(place: Place) -> bool:
    """Whether a run only counts there, or adds numbers and strings to a container."""
    value = place.value
    if place.contents is None:
        return type(value) is int or isinstance(value, count)
    return all(map(is_scalar, value.values() if isinstance(value, dict) else value))


def _prefixes(path: Path) -> list[Path]:
    return [path[:end] for end in range(1, len(path))]


def _short(path: Path) -> str:
    return name_of(path).partition(" of ")[0]


def _numbers_of(value: torch.Tensor | np.ndarray) -> bytes | int:
    """The numbers of a tensor or an array, or how often the tensor was changed."""
    if isinstance(value, np.ndarray):
        return value.tobytes() if value.nbytes <= SMALL else 0
    is_plain = value.layout is torch.strided and not (value.is_meta or value.is_nested)
    if not is_plain or value.nbytes > SMALL:
        return 0 if value.is_inference() else value._version
    value = value.detach().cpu().resolve_conj().resolve_neg()
    if value.is_floating_point() and value.dtype not in (
        torch.float16,
        torch.float32,
        torch.float64,
    ):
        value = value.float()  # NumPy has no bfloat16
    return value.numpy().tobytes()


def _state_of(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _set_state(generator: Any, name: str, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif generator is None:
        (random.setstate if "Python" in name else np.random.set_state)(state)
    else:
        (generator.setstate if isinstance(generator, random.Random) else generator.set_state)(
            state
        )


def _refill(container: Any, contents: Any) -> None:
    if isinstance(container, list):
        container[:] = contents
    else:
        container.clear()
        getattr(container, "extend" if isinstance(container, deque) else "update")(contents)
