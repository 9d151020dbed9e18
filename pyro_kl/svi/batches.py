"""The arguments of each step: the same at all, or batches of data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..messages import see

#: The positional arguments of each step: one after another, or by the number of steps before it.
Batches = Iterable[Any] | Callable[[int], Any]

Arguments = tuple[Any, ...]


def arguments_by_step(args: Arguments, batches: Batches | None) -> Callable[[int], Arguments]:
    """The positional arguments by the number of steps before.

    Args:
        args: those that are the same at all steps; they come first.
        batches: those of each step. A tuple or list is several arguments, all else is one. An
            iterable that ends, such as a DataLoader, is started again.

    Returns:
        A function that is called once for each step.
    """
    if batches is None:
        return lambda step: args
    if callable(batches):
        return lambda step: (*args, *_as_tuple(batches(step)))
    several = _again_and_again(batches)
    return lambda step: (*args, *_as_tuple(next(several)))


def _as_tuple(batch: Any) -> Arguments:
    return tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)


def _again_and_again(batches: Iterable[Any]) -> Iterator[Any]:
    count = 0
    while True:
        before = count
        for batch in batches:
            count += 1
            yield batch
        if count == before:
            raise ValueError(
                f"batches ended after {count} of them and cannot be started again: give a list, a "
                "DataLoader or a function of the step, or fewer steps." + see("batches-ended")
            )
