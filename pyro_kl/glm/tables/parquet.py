"""Parquet files, one or many, as chunks: rows of their row groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from ...messages import see
from .batches import ROWS, check_names, evenly, one_batch
from .errors import TableError
from .words import is_text


@dataclass(frozen=True)
class _Block:
    """Row groups of one file that are read one after another: the least that can be opened."""

    path: str
    groups: range
    num_rows: int


@dataclass
class _Cursor:
    """Where the last chunk ended, so that the next one goes on from there."""

    block: int
    columns: tuple[str, ...]
    next: int
    batches: Iterator[pa.RecordBatch]


class ParquetBatches:
    """Parquet files with the same columns, in any order; a chunk is some rows of one file.

    Chunks that are read in order are decoded once. To read another one, its block is decoded from
    the start: a row group, or a few small ones.

    Args:
        paths: the files.

    Raises:
        TableError: a file cannot be read, or has other columns than the first one.
    """

    first_row = 1
    whole = False

    def __init__(self, paths: Sequence[str]) -> None:
        self.source = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        self._blocks: list[_Block] = []
        self._metadata: dict[str, pq.FileMetaData] = {}
        for path in paths:
            with _opened(path) as file:
                self._metadata[path] = file.metadata
                self._blocks += _blocks_of(path, file.metadata)
                schema = file.schema_arrow
            check_names(path, schema.names)
            if path == paths[0]:
                self.schema = schema
            else:
                _check_shard(path, schema, paths[0], self.schema)
        self._texts = [field.name for field in self.schema if is_text(field.type)]
        self._chunks = [
            (block, number)
            for block in range(len(self._blocks))
            for number in range(-(-self._blocks[block].num_rows // ROWS))
        ]
        self.sizes: list[int | None] = [
            min(ROWS, self._blocks[block].num_rows - number * ROWS)
            for block, number in self._chunks
        ]
        self._cursor: _Cursor | None = None

    def read(self, index: int, columns: Sequence[str]) -> pa.RecordBatch:
        """Return some columns of one chunk."""
        block, number = self._chunks[index]
        cursor = self._cursor
        if (
            cursor is None
            or (cursor.block, cursor.columns) != (block, tuple(columns))
            or cursor.next > number
        ):
            batches = self._batches(self._blocks[block], columns)
            self._cursor = cursor = _Cursor(block, tuple(columns), 0, batches)
        for _ in range(number - cursor.next):
            next(cursor.batches)
        batch = next(cursor.batches)
        cursor.next = number + 1
        if cursor.next * ROWS >= self._blocks[block].num_rows:
            self._cursor = None  # the file is closed
        return batch

    def _batches(self, block: _Block, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        texts = [name for name in self._texts if name in columns]
        groups, metadata = list(block.groups), self._metadata[block.path]
        with pq.ParquetFile(
            block.path, metadata=metadata, memory_map=True, read_dictionary=texts
        ) as file:
            yield from _of_equal_length(file.iter_batches(ROWS, groups, list(columns)))

    def spread(self, count: int) -> list[int]:
        """Return the first chunks of blocks, evenly over the table; all chunks where few are."""
        firsts = [i for i, (_, number) in enumerate(self._chunks) if number == 0]
        enough = len(firsts) >= count
        return evenly(firsts if enough else range(len(self._chunks)), count)


def _opened(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (OSError, pa.ArrowInvalid) as error:
        reason = str(error).splitlines()[0]
        raise TableError(
            f"{path}: cannot be read as Parquet ({reason})" + see("table-file")
        ) from None


def _of_equal_length(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of a chunk's length: a row group of text ends a batch early."""
    rest: list[pa.RecordBatch] = []
    for batch in batches:
        rest.append(batch)
        num_rows = sum(part.num_rows for part in rest)
        if num_rows < ROWS:
            continue
        table = pa.Table.from_batches(rest)
        yield batch if len(rest) == 1 else one_batch(table.slice(0, ROWS))
        rest = table.slice(ROWS).to_batches()
    if rest:
        yield one_batch(pa.Table.from_batches(rest))


def _blocks_of(path: str, metadata: pq.FileMetaData) -> Iterator[_Block]:
    """Large row groups one by one, small ones together until they are a chunk."""
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    start = 0
    for stop in range(1, len(sizes) + 1):
        num_rows = sum(sizes[start:stop])
        if num_rows >= ROWS or (stop == len(sizes) and num_rows):
            yield _Block(path, range(start, stop), num_rows)
            start = stop


def _check_shard(path: str, schema: pa.Schema, first: str, expected: pa.Schema) -> None:
    """Raise a TableError if a file lacks a column, or has text where the first has none."""
    missing = [name for name in expected.names if name not in schema.names]
    if missing:
        raise TableError(
            f"{path}: no column {missing[0]!r}, which {first} has" + see("table-columns")
        )
    for field in expected:
        kind = schema.field(field.name).type
        if is_text(kind) != is_text(field.type):
            raise TableError(
                f"{path}: column {field.name!r} is {kind}; in {first} it is {field.type}"
                + see("table-columns")
            )
