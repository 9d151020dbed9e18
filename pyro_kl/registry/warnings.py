"""Warnings that point at the line of the user's that asked."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

#: Whose frames lie between that line and a warning of ours.
_BETWEEN = frozenset(("pyro_kl", "torch", "pyro", "contextlib", "functools"))


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """`warnings.warn` at the innermost line outside this package, torch and Pyro.

    How many calls lie between is not the same for all ways in: a KL is asked for by
    `pyro_kl.kl`, by `torch.distributions.kl_divergence` and by a step of Pyro's SVI.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _module(frame.f_globals) in _BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


_told: set[str] = set()


def warn_once(key: str, message: str) -> None:
    """`warn`, unless there has been a warning of that key."""
    if key not in _told:
        _told.add(key)
        warn(message)


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings inside the block, and none of ours taken for told after it."""
    before = set(_told)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    _told.intersection_update(before)


def _module(names: dict[str, object]) -> str:
    """The top-level package that a frame's globals are those of."""
    return str(names.get("__name__", "")).partition(".")[0]
