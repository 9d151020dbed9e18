"""Which places differ between two walks over the same functions, and the words for it."""

from __future__ import annotations

from collections.abc import Iterator

from .places import CONTENTS, Place, name_of
from .reads import LARGE
from .values import same, shown

__all__ = ["changed", "differences_in_words"]


def changed(before: list[Place], after: list[Place]) -> Iterator[tuple[Place, Place | None]]:
    """Places that differ, each with what it is now; None if it no longer exists."""
    now = {place.path: place for place in after}
    for place in before:
        other = now.get(place.path)
        if other is None or not _is_same_place(place, other):
            yield place, other


def _is_same_place(place: Place, other: Place) -> bool:
    if place.contents is None or other.contents is None:
        return same(place.value, other.value)
    if len(place.contents) <= LARGE and not isinstance(place.value, (dict, set, frozenset)):
        return len(place.contents) == len(other.contents)  # each element is a place of its own
    return same(place.contents, other.contents)


def differences_in_words(before: list[Place], after: list[Place]) -> Iterator[str]:
    """The places that differ between two walks, in words."""
    pairs = changed(before, after)
    for place, other in sorted(pairs, key=lambda pair: pair[1] is None):  # the cause comes first
        name = name_of(place.path)
        if other is None:
            yield f"{name} no longer exists"
        elif place.contents is not None and other.contents is not None:
            if len(place.contents) != len(other.contents):
                lengths = len(place.contents), len(other.contents)
                yield f"{name} had {lengths[0]} elements and has {lengths[1]}"
            else:
                yield f"{name} contains other elements"
        else:
            old, new = shown(place.value), shown(other.value)
            yield f"{name} was {old} and is {new if new != old else 'another object'}"
    known = {place.path for place in before}
    for place in after:
        if place.path not in known and place.path[-1] != CONTENTS:
            yield f"{name_of(place.path)} is new"
