"""What a run of model and guide changes in Python by itself, and whether it reads it again."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

import torch

from .moments import Changes, Moment, Saved
from .places import Path, Place, name_of
from .random_state import generators_kept
from .reads import DEPTH, Walk
from .values import is_scalar
from .watched import Collecting, ReadLog, Watched, path_of, unwrap

__all__ = ["SideEffects", "find_side_effects"]

RUNS = 3  # what only the first runs change is a cache


class SideEffects(NamedTuple):
    """What a run changes by itself."""

    refusals: list[str]  # why a recorded step would not do what a run does
    notices: list[str]  # what a recorded step leaves out
    unread: set[Path]  # places that each run changes and none reads


def find_side_effects(take: Callable[[], Walk], run_once: Callable[[], object]) -> SideEffects:
    """Run model and guide a few times, and compare what is in Python before and after.

    A place that every run changes is then replaced by a stand-in that notes whether it is read:
    a number may be counted on (`n += 1`), a list may be added to, everything may be overwritten.
    To print a number is to read it.

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
    before = Moment(take())
    if refusals := [
        f"{path[0]} reads the iterator {_short(path)}, which gives other values to each run"
        for path in before.walk.iterators
    ]:
        return SideEffects(refusals, [], set())
    notices = [
        f"Compiled steps do not see a change of {what} because it is too large to be compared "
        "before each step: make it a tensor or an argument if it changes"
        for what in before.walk.not_compared
    ]
    saved, in_place = Saved(before), dict[Path, None]()
    for number in range(RUNS):
        if number == 0:
            run_once()
        else:
            _run_with_other_draws(run_once, seed=number)
        after = Moment(take())
        changes = before.changes(after)
        if number > 0:
            in_place |= dict.fromkeys(changes.in_place)
        if not (any(changes) or in_place):
            return SideEffects([], notices, set())
        before = after
    changes = changes._replace(in_place=[*in_place])
    counters = {place.path for place in changes.places if _only_counts(place)}
    read = _find_reads(changes.places, take, run_once)
    saved.restore(changes)
    unread = {place.path for place in changes.places} - set(read)
    notices += [
        "Python side effects of model and guide do not happen in compiled steps: "
        f"{name_of(place.path)} keeps the value of the recorded step"
        for place in changes.places
        if place.path in unread - counters
    ]
    return SideEffects([*_refusals(changes, read)], notices, unread)


def _refusals(changes: Changes, read: list[Path]) -> Iterator[str]:
    for name in changes.sources:
        yield f"a run draws from {name}, which a recorded step would not do"
    for path in changes.in_place:
        yield f"a run changes {name_of(path)} in place, which a recorded step would not do"
    for path in read:
        yield f"{path[0]} reads {_short(path)}, which it changes itself in each run"


def _find_reads(
    places: list[Place], take: Callable[[], Walk], run_once: Callable[[], object]
) -> list[Path]:
    """The paths of those places that a run reads, found by a run with stand-ins in them."""
    log = ReadLog()
    try:
        _put_stand_ins(places, take().places, log)
        _run_with_other_draws(run_once, seed=RUNS)
    except Exception:  # code in C does not know a stand-in: it would have read it
        log.paths = log.paths or dict.fromkeys(place.path for place in places)
    finally:
        log.open = False
        _take_back(take)
    if log.alive():
        gc.collect()
    # Something that the walk does not reach keeps a number: who reads it there is not known.
    return [*log.paths | {path_of(watched): None for watched in log.alive()}]


def _put_stand_ins(places: list[Place], now: list[Place], log: ReadLog) -> None:
    for place in places:
        kind, targets = Watched, [place]
        if place.contents is not None:  # whatever refers to the container gets the stand-in
            kind = Collecting
            targets = [it for it in now if it.value is place.value and it.contents is None]
        if not targets:  # an element of a tuple cannot be replaced
            log.paths[place.path] = None
        for target in targets:
            target.holder.put(target.key, kind(place.value, place.path, log))


def _run_with_other_draws(run_once: Callable[[], object], seed: int) -> None:
    """Run once more; with the same draws, a draw that is kept would seem to be unchanged."""
    with generators_kept():
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        run_once()


def _take_back(take: Callable[[], Walk]) -> None:
    """Replace the stand-ins by their values; a list is looked into once it is a list again."""
    for _ in range(DEPTH):
        found = [p for p in take().places if p.contents is None and unwrap(p.value) is not p.value]
        for place in found:
            place.holder.put(place.key, unwrap(place.value))
        if not found:
            return


def _only_counts(place: Place) -> bool:
    """Whether a run only counts there, or adds numbers and strings to a container."""
    value = place.value
    if place.contents is None:
        return type(value) is int or isinstance(value, count)
    return all(map(is_scalar, value.values() if isinstance(value, dict) else value))


def _short(path: Path) -> str:
    return name_of(path).partition(" of ")[0]
