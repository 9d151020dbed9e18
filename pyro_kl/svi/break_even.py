"""Whether a fit is done sooner if its steps are compiled."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

#: Seconds to compile a block: those of any block, and of each operation (one core of 2024).
_SECONDS = 15.0
_SECONDS_PER_OPERATION = 0.02


def pays(remaining: int | None, now: float, compiled: float, build: float, spent: float) -> bool:
    """Whether to compile the steps of a fit.

    If the number of steps is not known, the build starts when the steps have taken as long as it
    will: the fit then takes at most about twice the time that the best decision would have given
    (the ski rental problem).

    Args:
        remaining: steps of the fit, or None if it is not known.
        now: seconds for a step as it is.
        compiled: seconds for a step that is compiled.
        build: seconds for the build.
        spent: seconds of the steps so far.

    Reference:
        Karlin, Manasse, Rudolph and Sleator (1988), Competitive snoopy caching, Algorithmica 3.
    """
    if remaining is None:
        return spent > build and now > compiled
    return remaining * (now - compiled) > build


def estimated_seconds(operations: int, folder: Path) -> float:
    """How long the build of a block of so many operations takes on this machine."""
    return _slowness(folder) * _by_operations(operations)


def remember_seconds(operations: int, seconds: float, folder: Path) -> None:
    """Keep in the cache folder how long a build has taken, for later estimates."""
    slowness = (_slowness(folder) + seconds / _by_operations(operations)) / 2
    with suppress(OSError):
        _file(folder).write_text(f"{slowness:.3f}\n")


def _by_operations(operations: int) -> float:
    return _SECONDS + _SECONDS_PER_OPERATION * operations


def _slowness(folder: Path) -> float:
    """The time of builds on this machine as a multiple of `_by_operations`."""
    try:
        return float(_file(folder).read_text())
    except (OSError, ValueError):
        return 1.0


def _file(folder: Path) -> Path:
    return folder / "slowness"
