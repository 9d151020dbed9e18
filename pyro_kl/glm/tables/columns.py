"""How each column of a table becomes features: numbers, one feature for each level, or none."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ...messages import see
from .batches import Batches
from .errors import TableError
from .survey import Summary, Survey, is_number
from .words import coded, is_text, numbers

#: Names, in lower case, of columns that number the rows.
ID_NAMES = ("id", "index", "rownames", "rowname", "row", "row_id", "unnamed: 0", "column 1")
#: A column with more distinct numbers than this among its texts is one of numbers.
FEW_NUMBERS = 20
#: Integers that are all different tell of an identifier in at least this many rows.
MANY_DISTINCT = 20
#: Names of levels in a line.
SHOWN = 5
_DATE = re.compile(r"\d{1,4}([./-])\d{1,2}\1\d{1,4}(\D|$)")


@dataclass(frozen=True)
class Number:
    """A column of numbers, or of false and true, as one feature.

    Attributes:
        column: its name.
        shift: what is subtracted.
        scale: what it is divided by then.
        fill: the feature of a missing value; nan to leave its row out.
    """

    column: str
    shift: float = 0.0
    scale: float = 1.0
    fill: float = np.nan

    @property
    def names(self) -> tuple[str, ...]:
        """The name of the feature."""
        return (self.column,)

    def write(self, array: pa.Array, out: np.ndarray, missing: Iterable[str]) -> None:
        """Write the feature into ``out``, of shape ``(1, n)``."""
        values = numbers(array, missing)
        if self.shift == 0.0 and self.scale == 1.0:
            out[0] = values
        else:
            np.subtract(values, self.shift, out=out[0], casting="same_kind")
            out[0] *= 1.0 / self.scale
        if self.fill == self.fill:
            out[0, np.isnan(out[0])] = self.fill


@dataclass(frozen=True)
class Levels:
    """A column of text as one feature, 0 or 1, for each level but the reference.

    Attributes:
        column: its name.
        reference: the level whose features are all 0: the most frequent one.
        levels: the others, the most frequent ones first.
        fill: the features of a missing value: 0, or nan to leave its row out.
    """

    column: str
    reference: str
    levels: tuple[str, ...]
    fill: float = np.nan

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features."""
        return tuple(f"{self.column}={level}" for level in self.levels)

    def write(self, array: pa.Array, out: np.ndarray, missing: Iterable[str]) -> None:
        """Write the features into ``out``, of shape ``(levels, n)``.

        Raises:
            TableError: a level was not there when the levels were found.
        """
        texts, codes = coded(array, missing)
        place = {level: i for i, level in enumerate((self.reference, *self.levels))}
        known = np.array(
            [place.get(text, -2) if text is not None else -1 for text in [*texts, None]]
        )
        found = known[codes]
        if (found == -2).any():
            level = texts[codes[np.argmax(found == -2)]]
            raise TableError(
                f"column {self.column!r} has the level {level!r}, which it did not have before"
                + see("table-values")
            )
        for i in range(len(self.levels)):
            np.equal(found, i + 1, out=out[i], casting="unsafe")
        if self.fill != self.fill:
            out[:, found == -1] = self.fill


Encoder = Number | Levels


@dataclass(frozen=True)
class Options:
    """What a user may ask for.

    Attributes:
        impute: whether missing values are filled in; else their rows are left out.
        standardise: whether numbers get mean 0 and standard deviation 1.
        max_levels: a text with more levels is left out.
        keep: columns that are features even if they look like identifiers.
        missing: the words that mean a missing value, in lower case.
    """

    impute: bool
    standardise: bool
    max_levels: int
    keep: frozenset[str]
    missing: tuple[str, ...]


def encoders(batches: Batches, found: Survey, options: Options) -> tuple[list[Encoder], list[str]]:
    """Return how each column is encoded, and the lines to tell about them.

    Raises:
        TableError: a column cannot be used as it is, or none is left.
    """
    kept: list[Encoder] = []
    lines: list[str] = []
    for summary in found.columns.values():
        why_not = _left_out(summary, found.is_whole, options)
        if why_not:
            lines.append(f"{summary.name}: left out, {why_not}")
            continue
        if summary.infinite is not None and found.is_whole:
            row = summary.infinite + batches.first_row
            raise TableError(
                f"{batches.source}: row {row}, column {summary.name!r}: not finite; drop the "
                "column or mend the row" + see("table-values")
            )
        if not math.isfinite(summary.squares):
            largest = max(-summary.minimum, summary.maximum)
            raise TableError(
                f"{batches.source}: column {summary.name!r} has values up to {largest:.2g}, whose "
                "squares are no finite numbers; divide it, or drop it" + see("table-columns")
            )
        encoder, told = _encoder(batches.source, summary, options)
        kept.append(encoder)
        lines += told
        if summary.missing:
            share = f"{summary.missing:,} of {summary.rows:,} values are missing"
            lines.append(f"{summary.name}: {share}, {_treatment(encoder, options)}")
    if not kept:
        why = "; ".join(lines)
        raise TableError(
            f"{batches.source}: no feature columns besides the target ({why})"
            + see("table-columns")
        )
    if options.standardise and not found.is_whole:
        lines.append("means and standard deviations are those of a part of the rows")
    return kept, lines


def _treatment(encoder: Encoder, options: Options) -> str:
    if not options.impute:
        return "the rows are left out"
    if isinstance(encoder, Levels):
        return f"and become {encoder.reference!r}"
    return "and become the mean"


def _left_out(summary: Summary, is_whole: bool, options: Options) -> str | None:
    """Why a column cannot be a feature; None if it can."""
    kind = summary.type
    if pa.types.is_temporal(kind):
        return "a date or time; derive numbers from it where it matters"
    if summary.rows and not summary.present:
        return "all values are missing"
    keep = summary.name in options.keep
    if is_text(kind) and not summary.is_numeric:
        return None if keep else _text_left_out(summary, options)
    if not (is_text(kind) or is_number(kind)):
        return "all values are missing" if pa.types.is_null(kind) else f"of the type {kind}"
    if is_whole and summary.minimum == summary.maximum and summary.infinite is None:
        return "constant"
    if not keep and _numbers_rows(summary):
        return "numbers the rows"
    return None


def _text_left_out(summary: Summary, options: Options) -> str | None:
    levels = summary.levels
    if len(levels) == 1:
        return "constant"
    if _has_many_numbers(levels):
        return None
    if all(_DATE.match(level) for level in levels):
        return "a date or time; derive numbers from it where it matters"
    if len(levels) == summary.present and summary.present > 2:
        return "an identifier: each value is there once"
    if len(levels) > options.max_levels:
        return f"{len(levels):,} levels or more, and no more than {options.max_levels} are encoded"
    return None


def _numbers_rows(summary: Summary) -> bool:
    """Whether a column of integers is an identifier: it counts the rows, or its name says so."""
    if summary.rows < 3 or not summary.is_distinct:
        return False
    if _is_named_id(summary.name):
        return True
    counts = summary.steps or summary.maximum - summary.minimum == summary.present - 1
    return counts and summary.rows >= MANY_DISTINCT


def _is_named_id(name: str) -> bool:
    return name.lower() in ID_NAMES or name.lower().endswith("_id")


def _has_many_numbers(levels: Counter[str]) -> bool:
    """Whether a text has numbers in most rows, of so many values that they are no levels."""
    numeric = [level for level in levels if _is_numeric(level)]
    return len(numeric) > FEW_NUMBERS and sum(levels[level] for level in numeric) * 2 > sum(
        levels.values()
    )


def _is_numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _encoder(source: str, summary: Summary, options: Options) -> tuple[Encoder, list[str]]:
    """The encoder of a column that can be a feature, and the lines to tell about it."""
    if is_text(summary.type) and not summary.is_numeric:
        return _levels(source, summary, options)
    lines = [f"{summary.name}: text that is numbers only"] if is_text(summary.type) else []
    if summary.name not in options.keep:
        if _is_named_id(summary.name):
            lines.append(f"{summary.name}: used as a number; drop it if it is an identifier")
        elif summary.rows >= MANY_DISTINCT and summary.is_distinct:
            lines.append(f"{summary.name}: all values differ; drop it if it is an identifier")
    boolean = pa.types.is_boolean(summary.type)
    if boolean:
        lines.append(f"{summary.name}: 1 is true")
    shift, scale = 0.0, 1.0
    if options.standardise and not boolean:
        shift, scale = summary.mean, summary.sd if summary.sd > 0.0 else 1.0
    fill = (summary.mean - shift) / scale if options.impute else np.nan
    return Number(summary.name, shift, scale, fill), lines


def _levels(source: str, summary: Summary, options: Options) -> tuple[Encoder, list[str]]:
    counts = summary.levels
    if _has_many_numbers(counts):
        words = [level for level in counts if not _is_numeric(level)]
        few = ", ".join(map(repr, words[:SHOWN]))
        raise TableError(
            f"{source}: column {summary.name!r} has numbers and text ({few}); say that the text "
            "means a missing value, or drop the column" + see("table-values")
        )
    reference, *others = sorted(counts, key=lambda level: (-counts[level], level))
    few = ", ".join(map(repr, others[:SHOWN])) + (", ..." if len(others) > SHOWN else "")
    line = f"{summary.name}: {len(counts)} levels; the reference is {reference!r}, features {few}"
    fill = 0.0 if options.impute else np.nan
    return Levels(summary.name, reference, tuple(others), fill), [line]


def scales_of(kept: Sequence[Encoder]) -> tuple[np.ndarray, np.ndarray]:
    """Return shift and scale of each feature; 0 and 1 for levels."""
    pairs = [
        (encoder.shift, encoder.scale) if isinstance(encoder, Number) else (0.0, 1.0)
        for encoder in kept
        for _ in encoder.names
    ]
    shift, scale = np.array(pairs).T
    return shift, scale
