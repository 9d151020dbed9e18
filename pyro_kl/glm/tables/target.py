"""The target of a table: which of its two values is 1, or a count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ...messages import see
from .errors import TableError
from .words import coded, is_text, numbers

#: Words, in lower case, that are the value 1 against another word.
POSITIVE = ("1", "yes", "y", "true", "t", "positive", "pos", "present", "success", "case")


@dataclass(frozen=True)
class Target:
    """A column with two values.

    Attributes:
        name: of the column.
        zero: the value that is 0.
        one: the value that is 1.
    """

    name: str
    zero: object
    one: object

    @property
    def classes(self) -> tuple[object, object]:
        """The values that are 0 and 1."""
        return self.zero, self.one

    @property
    def label(self) -> str:
        """What 1 means: "y = yes"."""
        return f"{self.name} = {shown(self.one)}"

    def encode(self, array: pa.Array, missing: Sequence[str]) -> np.ndarray:
        """Return 0 and 1, and nan where the value is missing.

        Raises:
            TableError: there is a third value.
        """
        if is_text(array.type):
            texts, codes = coded(array, missing)
            table = np.array([self._number(text) for text in [*texts, None]])
            return table[codes]
        values = numbers(array)
        out = (values == self.one).astype(np.float64)
        other = (values != self.one) & (values != self.zero)
        if other.any():
            out[other] = np.nan
            present = values[other & ~np.isnan(values)]
            if len(present):
                self._refuse(present[0].item())
        return out

    def _number(self, text: str | None) -> float:
        if text is None:
            return np.nan
        if text not in (self.zero, self.one):
            self._refuse(text)
        return float(text == self.one)

    def _refuse(self, value: object) -> None:
        known = f"{shown(self.zero)} and {shown(self.one)}"
        raise TableError(
            f"the target {self.name!r} is {shown(value)}; its values were {known}"
            + see("table-target")
        )


@dataclass(frozen=True)
class Count:
    """A column of counts.

    Attributes:
        name: of the column.
    """

    name: str
    classes: None = None

    def encode(self, array: pa.Array, missing: Sequence[str]) -> np.ndarray:
        """Return the counts, and nan where one is missing.

        Raises:
            TableError: a value is no count.
        """
        values = numbers(array, missing).astype(np.float64)
        wrong = (values < 0.0) | (values != np.floor(values)) | np.isinf(values)
        wrong &= ~np.isnan(values)
        if wrong.any():
            value = shown(values[wrong][0].item())
            raise TableError(
                f"the target {self.name!r} has the value {value}, which is no count"
                + see("table-target")
            )
        return values


def shown(value: object) -> str:
    """A value as the file has it: 1 for 1.0, true for True."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def find_target(
    source: str, name: str, counts: Counter[object], positive: object | None
) -> tuple[Target, list[str]]:
    """Return the target, and the lines to tell about it.

    Args:
        source: what messages call the table.
        name: of the column.
        counts: rows of each value; None counts the missing ones.
        positive: the value that is 1, or its text; None for one of the words of `POSITIVE`, else
            the second in order.

    Raises:
        TableError: it has not two values.
    """
    values = _sorted([value for value in counts if value is not None and counts[value]])
    if not values:
        raise TableError(f"{source}: the target {name!r} has no values" + see("table-target"))
    if len(values) == 1:
        raise TableError(
            f"{source}: the target {name!r} has one class only ({shown(values[0])!r}); "
            "two are needed" + see("table-target")
        )
    if len(values) > 2:
        few = ", ".join(repr(shown(value)) for value in values[:4])
        raise TableError(
            f"{source}: the target {name!r} is not binary: it has {len(values)} distinct values "
            f"({few}{', ...' if len(values) > 4 else ''})" + see("table-target")
        )
    one = _positive(source, name, values, positive)
    zero = values[0] if one is values[1] else values[1]
    target = Target(name, zero, one)
    lines = [f"target: 1 is {target.label!r} ({counts[one]:,} rows), 0 is {shown(zero)!r}"]
    return target, lines + _missing_line(name, counts)


def find_count(source: str, name: str, counts: Counter[object]) -> tuple[Count, list[str]]:
    """Return a target of counts, and the lines to tell about it.

    Args:
        source: what messages call the table.
        name: of the column.
        counts: rows of each value; None counts the missing ones.

    Raises:
        TableError: it is text.
    """
    if any(isinstance(value, (str, bool)) for value in counts):
        raise TableError(f"{source}: the target {name!r} is no count" + see("table-target"))
    return Count(name), _missing_line(name, counts)


def _missing_line(name: str, counts: Counter[object]) -> list[str]:
    if not counts[None]:
        return []
    return [f"{name}: {counts[None]:,} rows without a target are left out"]


def _sorted(values: list[object]) -> list[object]:
    """In order, of numbers if all of them are: 9 before 10."""
    try:
        return sorted(values, key=float)  # type: ignore[arg-type]
    except ValueError:
        return sorted(values, key=str)


def _positive(source: str, name: str, values: list[object], positive: object | None) -> object:
    """The one of two values that is 1."""
    if positive is not None:
        wanted = shown(positive)
        known_as = {shown(value): value for value in values}
        for word in (wanted, wanted.lower(), {"true": "1", "false": "0"}.get(wanted.lower())):
            if word in known_as:
                return known_as[word]
        known = " and ".join(repr(shown(value)) for value in values)
        raise TableError(
            f"{source}: the target {name!r} is never {wanted!r}; it is {known}"
            + see("table-target")
        )
    words = [value for value in values if shown(value).lower() in POSITIVE]
    return words[0] if len(words) == 1 else values[1]
