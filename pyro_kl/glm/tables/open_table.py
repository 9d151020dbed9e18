"""Opening a table: which reader it takes, and the survey of its columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from ...messages import see
from .batches import ArrowBatches, Batches, check_names
from .columns import Encoder, Number, Options, encoders
from .csv_batches import CSVBatches, TypesChanged
from .errors import TableError
from .parquet import ParquetBatches
from .survey import Summary, Survey, is_number, survey
from .table_rows import TableRows
from .target import Count, Target, find_count, find_target
from .words import MISSING, is_text

PARQUET = (".parquet", ".pq", ".parq")
ARROW = (".arrow", ".feather", ".ipc")


def open_table(
    source: Any,
    target: str,
    *,
    counts: bool,
    positive: object | None,
    drop: Sequence[str],
    keep: Sequence[str],
    weight: str | None,
    impute: bool,
    standardise: bool,
    missing: Sequence[str],
    max_levels: int,
    dtype: torch.dtype | None,
    separator: str | None,
    encoding: str | None,
) -> TableRows:
    """Open a table; `read_table` has the documentation."""
    words = (*MISSING, *(word.strip().lower() for word in missing))
    batches = _batches(source, words, separator, encoding)
    columns = _feature_columns(batches, target, drop, keep, weight)
    surveyed = [*columns, weight] if weight else columns
    found = _surveyed(batches, surveyed, target, words)
    if not any(batches.sizes):
        raise TableError(f"{batches.source}: there are no rows" + see("table-file"))
    options = Options(impute, standardise, max_levels, frozenset(keep), words)
    label: Target | Count
    if counts:
        label, lines = find_count(batches.source, target, found.target)
    else:
        label, lines = find_target(batches.source, target, found.target, positive)
    lines += _checked_weight(batches.source, found.columns.pop(weight)) if weight else []
    kept, told = encoders(batches, found, options)
    dtype = dtype or _dtype(batches.schema, kept)
    report = [*getattr(batches, "lines", ()), *lines, *told]
    return TableRows(batches, kept, label, weight, words, dtype, report)


def _batches(
    source: Any, missing: Sequence[str], separator: str | None, encoding: str | None
) -> Batches:
    """The reader of a path, several paths, or a table in memory."""
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.is_dir():
            return ParquetBatches(_parquet_files(path))
        if not path.exists():
            raise TableError(f"{path}: no such file; check the path" + see("table-file"))
        if path.suffix.lower() in PARQUET:
            return ParquetBatches([str(path)])
        if path.suffix.lower() in ARROW:
            return ArrowBatches(_mapped(path), str(path))
        return CSVBatches(path, missing, separator, encoding)
    if isinstance(source, (list, tuple)) and source:
        return ParquetBatches([str(path) for path in source])
    if hasattr(source, "files") and hasattr(source, "get_fragments"):  # a dataset of Arrow
        return ParquetBatches([str(path) for path in source.files])
    return ArrowBatches(_as_arrow(source), "the table")


def _as_arrow(source: Any) -> pa.Table:
    """A table, a record batch, a DataFrame of pandas or a data set of Hugging Face as a table."""
    if isinstance(source, pa.RecordBatch):
        return pa.Table.from_batches([source])
    if isinstance(source, pa.Table):
        return source
    table = getattr(getattr(source, "data", None), "table", None)
    if isinstance(table, pa.Table):
        if getattr(source, "_indices", None) is not None:
            raise TableError(
                "the data set has an order of its own; call flatten_indices() first"
                + see("table-file")
            )
        return table
    if hasattr(source, "iloc") and hasattr(source, "columns"):
        return _from_pandas(source)
    if hasattr(source, "__arrow_c_stream__"):  # of polars, DuckDB and others
        return pa.table(source)
    raise TableError(
        f"a table is a path, a table of Arrow or of pandas, not {type(source)}" + see("table-file")
    )


def _from_pandas(table: Any) -> pa.Table:
    """A DataFrame as a table; a column of objects of several types becomes text."""
    check_names("the table", map(str, table.columns))
    columns = {}
    for name, column in table.items():
        try:
            columns[str(name)] = pa.array(column, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            texts = column.map(str, na_action="ignore")
            columns[str(name)] = pa.array(texts, pa.string(), from_pandas=True)
    return pa.table(columns)


def _parquet_files(folder: Path) -> list[str]:
    files = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in PARQUET)
    if not files:
        raise TableError(
            f"{folder}: a folder without Parquet files ({', '.join(PARQUET)})" + see("table-file")
        )
    return files


def _mapped(path: Path) -> pa.Table:
    """A file of Arrow, mapped into memory: what is not compressed is read when it is used."""
    try:
        with pa.memory_map(str(path)) as file:
            try:
                return pa.ipc.open_file(file).read_all()
            except pa.ArrowInvalid:  # not a file with an index but a stream
                file.seek(0)
                return pa.ipc.open_stream(file).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise TableError(
            f"{path}: cannot be read as Arrow ({error})" + see("table-file")
        ) from None


def _feature_columns(
    batches: Batches, target: str, drop: Sequence[str], keep: Sequence[str], weight: str | None
) -> list[str]:
    """The columns that may become features, in the order of the table."""
    names = batches.schema.names
    for name in (target, *drop, *keep, *([weight] if weight else [])):
        if name not in names:
            known = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            raise TableError(
                f"{batches.source}: no column {name!r}; the columns are {known}"
                + see("table-columns")
            )
    taken = {target, weight, *drop}
    columns = [name for name in names if name not in taken]
    if not columns:
        raise TableError(
            f"{batches.source}: no feature columns besides the target {target!r}"
            + see("table-columns")
        )
    return columns


def _checked_weight(source: str, summary: Summary) -> list[str]:
    """Raise a TableError if a column has no weights; a line if some are missing."""
    if not (is_number(summary.type) or (is_text(summary.type) and summary.is_numeric)):
        raise TableError(
            f"{source}: the weight {summary.name!r} has values that are no numbers"
            + see("table-values")
        )
    if not summary.missing:
        return []
    return [f"{summary.name}: {summary.missing:,} rows without a weight are left out"]


def _surveyed(
    batches: Batches, columns: Sequence[str], target: str, missing: Sequence[str]
) -> Survey:
    """The survey, begun again whenever a chunk of text shows that a column's type is wider."""
    while True:
        try:
            return survey(batches, columns, target, missing)
        except TypesChanged:
            continue


def _dtype(schema: pa.Schema, kept: Sequence[Encoder]) -> torch.dtype:
    """float32 if all numbers have no more digits than that, else float64."""
    for encoder in kept:
        kind = schema.field(encoder.column).type
        small = pa.types.is_boolean(kind) or (is_number(kind) and kind.bit_width <= 16)
        if isinstance(encoder, Number) and not (small or pa.types.is_float32(kind)):
            return torch.float64
    floats = [schema.field(encoder.column).type for encoder in kept]
    return torch.float32 if any(map(pa.types.is_float32, floats)) else torch.float64
