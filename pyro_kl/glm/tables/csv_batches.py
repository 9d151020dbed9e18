"""CSV files as chunks of lines, each of which can be read alone."""

from __future__ import annotations

import csv
import io
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.csv

from ...messages import see
from .batches import ROWS, evenly, one_batch
from .csv_format import as_plain_text, find_format
from .errors import TableError
from .words import spellings

#: Bounds of a chunk in bytes.
LEAST_BYTES, MOST_BYTES = 1 << 16, 1 << 25


class TypesChanged(Exception):
    """A chunk has cells that the types found so far cannot hold; the types were widened."""


class CSVBatches:
    """A CSV file with a header line; a chunk is about 32,768 rows.

    Args:
        path: the file.
        missing: the words that mean a missing value.
        separator: between cells; None to find it.
        encoding: None to find it.

    Raises:
        TableError: the file cannot be read as CSV.
    """

    first_row = 2
    whole = True

    def __init__(
        self,
        path: Path,
        missing: Iterable[str],
        separator: str | None = None,
        encoding: str | None = None,
    ) -> None:
        self.source = str(path)
        self._path, known, lines = as_plain_text(path, encoding)
        if self._path != path:
            weakref.finalize(self, self._path.unlink)
        self.format = find_format(self.source, self._path, known, separator)
        self.lines = (*lines, *self.format.lines)
        self._words = spellings(missing)
        self._starts = self._indexed()
        if len(self._starts) < 2:
            raise TableError(f"{path}: a header line but no rows" + see("table-file"))
        self.sizes: list[int | None] = [None] * (len(self._starts) - 1)
        self._types: dict[str, pa.DataType] = dict.fromkeys(self.format.names, pa.null())
        for index in evenly(range(len(self.sizes)), 8):
            self._widen(self._parsed(index, None, None).schema)

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return pa.schema(list(self._types.items()))

    def read(self, index: int, columns: Sequence[str]) -> pa.RecordBatch:
        """Return some columns of one chunk.

        Raises:
            TypesChanged: the chunk needs wider types; it happens while all chunks are read for the
                first time.
            TableError: a row has more or fewer cells than the header.
        """
        try:
            table = self._parsed(index, columns, self._types)
        except pa.ArrowInvalid as error:
            before = dict(self._types)
            self._widen(self._parsed(index, None, None).schema)
            if self._types == before:
                reason = str(error).splitlines()[0]
                raise TableError(
                    f"{self.source}: cannot be read ({reason})" + see("table-file")
                ) from None
            raise TypesChanged from None
        self.sizes[index] = table.num_rows
        return one_batch(table)

    def spread(self, count: int) -> list[int]:
        """Return chunks evenly over the file."""
        return evenly(range(len(self.sizes)), count)

    def _indexed(self) -> list[int]:
        """Where chunks start, and the end: ends of lines that are not inside quotes."""
        position, rest = self.format.start, b""
        starts = [position]
        with self._path.open("rb") as file:
            file.seek(position)
            head = file.read(LEAST_BYTES)
            length = len(head) // max(head.count(b"\n"), 1) * ROWS
            length = max(LEAST_BYTES, min(length, MOST_BYTES))
            file.seek(position)
            while block := file.read(length):
                rest += block
                cut = _last_line_end(rest)
                if cut:
                    position, rest = position + cut, rest[cut:]
                    starts.append(position)
        if rest.strip():
            starts.append(position + len(rest))
        return starts

    def _bytes(self, index: int) -> bytes:
        """The text of a chunk, in UTF-8."""
        with self._path.open("rb") as file:
            file.seek(self._starts[index])
            data = file.read(self._starts[index + 1] - self._starts[index])
        if self.format.encoding == "utf-8":
            return data
        try:
            return data.decode(self.format.encoding).encode()
        except UnicodeDecodeError as error:
            raise TableError(
                f"{self.source}: not {self.format.encoding} text ({error})" + see("table-file")
            ) from None

    def _parsed(
        self, index: int, columns: Sequence[str] | None, types: dict[str, pa.DataType] | None
    ) -> pa.Table:
        data = self._bytes(index)
        form = self.format
        try:
            return pa.csv.read_csv(
                pa.BufferReader(data),
                read_options=pa.csv.ReadOptions(
                    use_threads=False, block_size=len(data) + 1, column_names=form.names
                ),
                parse_options=pa.csv.ParseOptions(
                    delimiter=form.separator, newlines_in_values=b'"' in data
                ),
                convert_options=pa.csv.ConvertOptions(
                    column_types=types,
                    include_columns=columns,
                    null_values=self._words,
                    strings_can_be_null=True,
                    decimal_point=form.decimal,
                ),
            )
        except pa.ArrowInvalid as error:
            if "parse error" in str(error) or types is None:
                self._say_which_line(index, data, error)
            raise

    def _say_which_line(self, index: int, data: bytes, error: Exception) -> NoReturn:
        """Raise the error of a row that has more or fewer cells than the header."""
        with self._path.open("rb") as file:
            before = file.read(self._starts[index]).count(b"\n")
        width = len(self.format.names)
        text = io.StringIO(data.decode(errors="replace"), newline="")
        reader = csv.reader(text, delimiter=self.format.separator)
        line = before + 1
        try:
            for row in reader:
                if row and len(row) != width:
                    raise TableError(
                        f"{self.source}: line {line} has {len(row)} cells where the header has "
                        f"{width}" + see("table-file")
                    )
                line = before + reader.line_num + 1
        except csv.Error:
            raise TableError(
                f"{self.source}: line {line} has a quote that ends nowhere" + see("table-file")
            ) from None
        raise TableError(
            f"{self.source}: not a CSV file ({str(error).splitlines()[0]})" + see("table-file")
        )

    def _widen(self, schema: pa.Schema) -> None:
        """Let the types hold what another chunk has."""
        for field in schema:
            if pa.types.is_binary(field.type):
                raise TableError(
                    f"{self.source}: column {field.name!r} is not {self.format.encoding} text; "
                    "leave the encoding out, and it is found" + see("table-file")
                )
            self._types[field.name] = _wider(self._types[field.name], field.type)


def _last_line_end(data: bytes) -> int:
    """Bytes up to the last end of a line that is not inside quotes; 0 if there is none."""
    cut = data.rfind(b"\n") + 1
    inside = data.count(b'"', 0, cut) % 2
    while cut and inside:
        previous = data.rfind(b"\n", 0, cut - 1) + 1
        inside ^= data.count(b'"', previous, cut) % 2
        cut = previous
    return cut


def _wider(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """The type that holds the cells of both."""
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    numbers = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (a, b)]
    if all(numbers):
        return pa.float64()
    return pa.string()
