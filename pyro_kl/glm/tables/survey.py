"""What the columns of a table hold: counts of missing values and levels, ranges, means."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...messages import see
from .batches import Batches
from .errors import TableError
from .words import is_text, level_counts, numbers

#: A table with at most this many rows is read whole when it is opened, a longer one in part, save
#: for its columns of text.
WHOLE_ROWS = 1 << 20
#: Chunks of a longer table that numbers are surveyed on.
SURVEYED_CHUNKS = 16
#: Levels of a text, and distinct integers, are counted up to this many.
MOST_COUNTED = 20_000


@dataclass
class Summary:
    """What one column holds, in the chunks that were read.

    Attributes:
        name: of the column.
        type: of Arrow.
        rows: how many were read.
        missing: how many of them have no value.
        minimum: of the finite numbers.
        maximum: of the finite numbers.
        mean: of the finite numbers.
        squares: sum of their squared differences from the mean.
        infinite: the row of the first infinite number.
        distinct: the values of each chunk, of integers that are all different in each; else None.
        steps: whether each integer is the one before plus 1, within each chunk.
        levels: rows of each text, counted while there are few enough.
        counted: whether all levels were.
        is_numeric: whether each text is a number.
    """

    name: str
    type: pa.DataType
    rows: int = 0
    missing: int = 0
    minimum: float = math.inf
    maximum: float = -math.inf
    mean: float = 0.0
    squares: float = 0.0
    infinite: int | None = None
    distinct: list[np.ndarray] | None = field(default_factory=list)
    steps: bool = True
    levels: Counter[str] = field(default_factory=Counter)
    counted: bool = True
    is_numeric: bool = True

    @property
    def present(self) -> int:
        """How many rows have a value."""
        return self.rows - self.missing

    @property
    def sd(self) -> float:
        """The standard deviation of the numbers."""
        return math.sqrt(self.squares / self.present) if self.present else 0.0

    @property
    def is_known(self) -> bool:
        """Whether more rows would tell nothing: it is a text of very many levels."""
        return not (self.counted or self.is_numeric)

    @property
    def is_distinct(self) -> bool:
        """Whether the values are integers that are all different."""
        return self.distinct is not None and (
            len(np.unique(np.concatenate([*self.distinct, np.empty(0)]))) == self.present
        )

    def add(self, array: pa.Array, missing: Iterable[str]) -> None:
        """Take in one chunk."""
        if is_text(self.type):
            self._add_text(array, missing)
        elif is_number(self.type):
            self._add_numbers(numbers(array))
        else:
            self.rows, self.missing = self.rows + len(array), self.missing + array.null_count

    def _add_text(self, array: pa.Array, missing: Iterable[str]) -> None:
        counts = level_counts(array, missing)
        absent = counts.pop(None)
        if self.is_numeric and not pa.types.is_dictionary(self.type):
            try:
                self._add_numbers(numbers(array, missing))
            except pa.ArrowInvalid:
                self.is_numeric = False
        else:
            self.is_numeric = False
        if not self.is_numeric:
            self.rows, self.missing = self.rows + len(array), self.missing + absent
        if self.counted:
            self.levels.update({text: count for text, count in counts.items() if text and count})
            self.counted = len(self.levels) <= MOST_COUNTED

    def _add_numbers(self, values: np.ndarray) -> None:
        rows = self.rows
        self.rows += len(values)
        finite = np.isfinite(values)
        if not finite.all():
            infinite = np.flatnonzero(np.isinf(values))
            if self.infinite is None and len(infinite):
                self.infinite = rows + int(infinite[0])
            self.missing += int(np.isnan(values).sum())
            values = values[finite]
        if not len(values):
            return
        if self.distinct is not None:
            self._compare(values)
        values = values.astype(np.float64, copy=False)
        self.minimum = min(self.minimum, float(values.min()))
        self.maximum = max(self.maximum, float(values.max()))
        count, before = len(values), self.present - len(values)
        with np.errstate(over="ignore", invalid="ignore"):  # not finite, which `encoders` refuses
            mean = float(values.mean())
            shift = mean - self.mean
            self.squares += float(((values - mean) ** 2).sum())
        self.squares += shift * shift * before * count / (before + count)
        self.mean += shift * count / (before + count)

    def _compare(self, values: np.ndarray) -> None:
        """Note whether integers are all different, and whether they count."""
        if not pa.types.is_integer(self.type) or len(np.unique(values)) < len(values):
            self.distinct = None
            return
        self.distinct = [*(self.distinct or []), values]
        self.steps &= bool((np.diff(values) == 1).all())


def is_number(kind: pa.DataType) -> bool:
    """Whether the cells of a column are numbers or true and false."""
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_boolean(kind)
    )


@dataclass
class Survey:
    """What all columns hold.

    Attributes:
        columns: by name.
        target: rows of each value of the target.
        is_whole: whether all rows were read.
    """

    columns: dict[str, Summary]
    target: Counter[object]
    is_whole: bool


def survey(
    batches: Batches, columns: Sequence[str], target: str, missing: Sequence[str]
) -> Survey:
    """Read a table for the first time: text and the target in full, numbers in full or in part."""
    sizes = batches.sizes
    is_whole = batches.whole or sum(size or 0 for size in sizes) <= WHOLE_ROWS
    kinds = {field.name: field.type for field in batches.schema}
    texts = [name for name in columns if is_text(kinds[name])]
    found = {name: Summary(name, kinds[name]) for name in columns}
    values: Counter[object] = Counter()
    for index in range(len(sizes)):
        wanted = [name for name in (columns if is_whole else texts) if not found[name].is_known]
        batch = batches.read(index, [*wanted, target])
        for name in wanted:
            found[name].add(batch.column(name), missing)
        _count(values, batch.column(target), missing)
    if not is_whole:
        rest = [name for name in columns if name not in texts]
        for index in batches.spread(SURVEYED_CHUNKS):
            batch = batches.read(index, rest)
            for name in rest:
                found[name].add(batch.column(name), missing)
    return Survey(found, values, is_whole)


def _count(values: Counter[object], array: pa.Array, missing: Sequence[str]) -> None:
    """Count the values of the target, up to a number of distinct ones; None is a missing one."""
    if len(values) > MOST_COUNTED:
        return
    if is_text(array.type):
        values.update(level_counts(array, missing))
    elif is_number(array.type):
        array = array.cast(pa.float64()) if pa.types.is_decimal(array.type) else array
        for pair in pc.value_counts(array).to_pylist():
            cell = pair["values"]
            values[None if cell != cell else cell] += pair["counts"]
    else:
        raise TableError(
            f"the target is of the type {array.type}; two values are needed" + see("table-target")
        )
