"""Warnings that point at the user's line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch.jit._trace import TracerWarning

from ..numerics.concrete import is_jit_traced

#: The packages whose frames lie between the user's line and a warning.
_BETWEEN = frozenset(("pyro_kl", "torch", "pyro", "contextlib", "functools"))


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """`warnings.warn` at the innermost line outside this package, torch and Pyro.

    The number of calls in between differs: a KL is computed by `pyro_kl.kl`, by
    `torch.distributions.kl_divergence` or by a step of Pyro's SVI.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and _module(frame.f_globals) in _BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


_warned: set[str] = set()


def warn_once(key: str, message: str) -> None:
    """`warn`, unless there has been a warning with this key."""
    if key not in _warned:
        _warned.add(key)
        warn(message)


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings inside the block; `warn_once` may repeat them after it."""
    before = set(_warned)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    _warned.intersection_update(before)


def without_tracer_warnings() -> AbstractContextManager[None]:
    """While torch.jit traces, its warnings are about the user's code, not about the KLs.

    The KLs read shapes, keep constants, and branch on values only where a report tells if the
    choice does not fit any more. A distribution of the user is warned of.
    """
    return _tracer_warnings_ignored() if is_jit_traced() else nullcontext()


@contextmanager
def _tracer_warnings_ignored() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=TracerWarning, module=r"(pyro_kl|torch)\.")
        yield


def _module(names: dict[str, object]) -> str:
    """The top-level package of a frame's globals."""
    return str(names.get("__name__", "")).partition(".")[0]
