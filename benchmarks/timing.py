"""Interleaved timing: contestants take turns in one process, in process CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from statistics import median

#: What is timed.
Run = Callable[[], object]


def seconds(run: Run) -> float:
    """Process CPU time of one run."""
    start = time.process_time_ns()
    run()
    return (time.process_time_ns() - start) / 1e9


def medians(
    makers: Mapping[str, Callable[[], Run]],
    repeats: int,
    *,
    warm: int = 1,
    within: Mapping[str, Callable[[], AbstractContextManager[object]]] | None = None,
) -> dict[str, float]:
    """The median seconds of each contestant; who goes first alternates.

    Args:
        makers: by name, what makes a run before its clock starts.
        repeats: turns of each.
        warm: turns before those, which are not counted.
        within: contexts that some of them are made and run in.
    """
    times: dict[str, list[float]] = {name: [] for name in makers}
    for turn in range(warm + repeats):
        for name in makers if turn % 2 else reversed([*makers]):
            with (within or {}).get(name, nullcontext)():
                spent = seconds(makers[name]())
            if turn >= warm:
                times[name].append(spent)
    return {name: median(some) for name, some in times.items()}
