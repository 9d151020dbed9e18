"""Record of the formulas used by one KL, from which a result gets its method and its error.

A rule for a wrapped distribution calls `kl_divergence` again, so that the formula which does the
work is known only while it runs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

#: From the most to the least exact. The method "rule" records nothing; the formula that the rule
#: calls does.
EXACTNESS = ("infinite", "point density", "closed form", "exact sum", "quadrature", "bound")


@dataclass(frozen=True)
class Use:
    """One formula that was used.

    Args:
        method: a word of `EXACTNESS`.
        source: where a reader finds the formula.
        error: of an integral, the estimate of its absolute error in nats.
        nodes: of an integral, the number of its nodes.
        reason: of an integral, why the error is larger than requested, or where it was split.
        pair: of an integral, the names of p and q.
        excess: of an integral in a traced step, where no value can be read: its error, in
            multiples of the requested one.
    """

    method: str
    source: str
    error: Tensor | None = None
    nodes: int = 0
    reason: str = ""
    pair: str = ""
    excess: Tensor | None = None


def home_of(module: str) -> str:
    """A module of this package by its room and its file: `pyro_kl.families.gamma`."""
    parts = module.split(".")
    return ".".join([*parts[:2], parts[-1]]) if parts[0] == "pyro_kl" else module


#: The open records, each with the thread that it belongs to.
_open: list[tuple[int, list[Use]]] = []


def _records() -> list[list[Use]]:
    """The open records of this thread."""
    # No ContextVar and no threading.local: torch.compile cannot trace the one and does not guard
    # on the other. It does not trace get_ident() either.
    if not _open:
        return []
    thread = threading.get_ident()
    return [uses for owner, uses in _open if owner == thread]


def note(use: Use) -> None:
    """Add a use to the open records of this thread."""
    for uses in _records():
        uses.append(use)


@contextmanager
def recording() -> Iterator[list[Use]]:
    """The list of formulas used inside the block, in the order of their calls."""
    entry: tuple[int, list[Use]] = (threading.get_ident(), [])
    _open.append(entry)
    try:
        yield entry[1]
    finally:
        _open[:] = [other for other in _open if other is not entry]  # two empty ones are equal


def mark() -> list[int]:
    """The lengths of this thread's open records, for `rewind` and `silent_since`."""
    return [len(uses) for uses in _records()] if _open else []


def silent_since(lengths: list[int]) -> bool:
    """Whether a record is open and nothing has been added to it since."""
    return any(len(uses) == n for uses, n in zip(_records(), lengths, strict=False))


def rewind(lengths: list[int]) -> None:
    """Take back what was noted since: the attempt led to no formula."""
    for uses, n in zip(_records(), lengths, strict=False):
        del uses[n:]


def least_exact(uses: Sequence[Use]) -> Use | None:
    """The least exact of the formulas used; None if none was recorded."""
    known = [use for use in uses if use.method in EXACTNESS]
    return max(known, key=lambda use: EXACTNESS.index(use.method), default=None)


def total_error(value: Tensor, uses: Sequence[Use]) -> Tensor | None:
    """The sum of the errors that integrals estimated, in `value`'s shape; None without integrals.

    An error of more dimensions is summed over the last ones, as KLs of independent coordinates
    are.
    """
    errors = [use.error for use in uses if use.error is not None]
    if not errors:
        return None
    total = torch.zeros_like(value.detach())
    for error in errors:
        extra = error.dim() - value.dim()
        error = error.to(total.dtype)
        if extra > 0:
            error = error.sum(tuple(range(-extra, 0)))
        fits = all(n in (1, m) for n, m in zip(error.shape[::-1], total.shape[::-1], strict=False))
        total = total + (error if fits else error.sum())
    return total
