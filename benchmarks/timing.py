"""Interleaved timing: contestants take turns in one process, in process CPU time."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from statistics import median

#: What is timed.
Run = Callable[[], object]


def seconds(run: Run) -> float:
    """Process CPU time of one run."""
    start = time.process_time_ns()
    run()
    return (time.process_time_ns() - start) / 1e9


def seconds_in_all(run: Run) -> float:
    """CPU time of one run, that of processes which it has started and ended included."""

    def children() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = children()
    return seconds(run) + children() - before


def interleaved(
    turns: Mapping[str, Callable[[], float]], repeats: int, *, warm: int = 1
) -> dict[str, list[float]]:
    """The seconds of each contestant in each round; who goes first alternates.

    Args:
        turns: by name, what takes a turn and returns its seconds.
        repeats: turns of each.
        warm: turns before those, which are not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(warm + repeats):
        for name in turns if number % 2 else reversed([*turns]):
            spent = turns[name]()
            if number >= warm:
                times[name].append(spent)
    return times


def medians(
    makers: Mapping[str, Callable[[], Run]],
    repeats: int,
    *,
    warm: int = 1,
    within: Mapping[str, Callable[[], AbstractContextManager[object]]] | None = None,
) -> dict[str, float]:
    """The median seconds of each contestant.

    Args:
        makers: by name, what makes a run before its clock starts.
        repeats: turns of each.
        warm: turns before those, which are not counted.
        within: contexts that some of them are made and run in.
    """

    def turn(name: str) -> float:
        with (within or {}).get(name, nullcontext)():
            return seconds(makers[name]())

    times = interleaved({name: partial(turn, name) for name in makers}, repeats, warm=warm)
    return {name: median(some) for name, some in times.items()}
