"""Tables of Arrow as chunks of columns, read in any order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import pyarrow as pa

from ...messages import see
from .errors import TableError

#: Rows of a chunk. Its features, 4 MB at 30 columns of float32, stay in a processor's cache.
ROWS = 1 << 15


class Batches(Protocol):
    """A table that is read chunk by chunk.

    Attributes:
        source: what messages call the table.
        first_row: what messages call the first row: 2 where a header is row 1.
        sizes: rows of each chunk; None where they are known after a chunk was read.
        whole: whether opening the table has to read all of it.
    """

    source: str
    first_row: int
    sizes: list[int | None]
    whole: bool

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        ...

    def read(self, index: int, columns: Sequence[str]) -> pa.RecordBatch:
        """Return some columns of one chunk."""
        ...

    def spread(self, count: int) -> list[int]:
        """Return about that many chunks, over the whole table, that are cheap to read."""
        ...


def evenly(indices: Sequence[int], count: int) -> list[int]:
    """Return at most that many of the indices, evenly spread."""
    if len(indices) <= count:
        return list(indices)
    return [indices[(2 * i + 1) * len(indices) // (2 * count)] for i in range(count)]


def check_names(source: str, names: Iterable[str]) -> None:
    """Raise a TableError if two columns have one name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise TableError(
                f"{source}: column {name!r} appears more than once; rename one"
                + see("table-columns")
            )
        seen.add(name)


class ArrowBatches:
    """A table of Arrow in memory, or memory-mapped; chunks are views of it where they can be."""

    first_row = 1
    whole = False

    def __init__(self, table: pa.Table, source: str) -> None:
        check_names(source, table.column_names)
        self.source = source
        self._table = table.unify_dictionaries()
        self.schema = table.schema
        starts = range(0, table.num_rows, ROWS)
        self.sizes: list[int | None] = [min(ROWS, table.num_rows - start) for start in starts]

    def read(self, index: int, columns: Sequence[str]) -> pa.RecordBatch:
        """Return some columns of one chunk."""
        part = self._table.select(list(columns)).slice(index * ROWS, ROWS)
        return one_batch(part)

    def spread(self, count: int) -> list[int]:
        """Return chunks evenly over the table."""
        return evenly(range(len(self.sizes)), count)


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """Return a table as one batch; columns in several pieces are copied into one."""
    columns = [_one_array(column) for column in table.unify_dictionaries().columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def _one_array(column: Any) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
