"""Which formulas a KL went through: what a result says of its method.

A rule for a wrapped distribution calls `kl_divergence` again, so that the formula which did the
work is known only while it runs. Whoever wants to know records.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

#: From the most to the least exact; what is not here (a rule) leaves the word to what it calls.
EXACTNESS = ("infinite", "point density", "closed form", "exact sum", "quadrature", "bound")


@dataclass(frozen=True)
class Use:
    """One formula that was used.

    Args:
        method: a word of `EXACTNESS`.
        source: where a reader finds the formula.
        error: for a rule that estimates its own error, the absolute error in nats.
        nodes: for a rule with nodes, how many.
        reason: what the rule has to say: a tolerance not reached, a cut at a kink.
        pair: of an integral, its two sides.
        excess: of an integral in a step that is recorded, where no value can be looked at: how
            many times the error that was asked for its own is.
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


_recorders: list[tuple[int, list[Use]]] = []


def note(use: Use) -> None:
    """Tell whoever records in this thread; nothing happens if nobody does."""
    if not _recorders:
        return
    thread = threading.get_ident()
    for owner, uses in _recorders:
        if owner == thread:
            uses.append(use)


@contextmanager
def recording() -> Iterator[list[Use]]:
    """The list of formulas used inside the block, in the order of their calls."""
    entry: tuple[int, list[Use]] = (threading.get_ident(), [])
    _recorders.append(entry)
    try:
        yield entry[1]
    finally:
        # by identity: two empty records are equal
        _recorders[:] = [other for other in _recorders if other is not entry]


def mark() -> list[tuple[list[Use], int]]:
    """Where the records of this thread stand, for `rewind`."""
    if not _recorders:
        return []
    thread = threading.get_ident()
    return [(uses, len(uses)) for owner, uses in _recorders if owner == thread]


def silent_since(marks: list[tuple[list[Use], int]]) -> bool:
    """Whether somebody records and nothing has been noted since."""
    return any(len(uses) == length for uses, length in marks)


def rewind(marks: list[tuple[list[Use], int]]) -> None:
    """Take back what was noted since: it led nowhere."""
    for uses, length in marks:
        del uses[length:]


def least_exact(uses: Sequence[Use]) -> Use | None:
    """The use that bounds how exact the whole is; None if no formula was recorded."""
    known = [use for use in uses if use.method in EXACTNESS]
    return max(known, key=lambda use: EXACTNESS.index(use.method), default=None)


def error_told(value: Tensor, uses: Sequence[Use]) -> Tensor | None:
    """What the integrals among the formulas said of their errors, in sum; None if none did.

    Of `value`'s shape: an error of more dimensions is summed over the last ones, as KLs of
    independent coordinates are.
    """
    told = [use.error for use in uses if use.error is not None]
    if not told:
        return None
    total = torch.zeros_like(value.detach())
    for error in told:
        extra = error.dim() - value.dim()
        error = error.to(total.dtype)
        if extra > 0:
            error = error.sum(tuple(range(-extra, 0)))
        fits = all(n in (1, m) for n, m in zip(error.shape[::-1], total.shape[::-1], strict=False))
        total = total + (error if fits else error.sum())
    return total
