"""The form of a CSV file: encoding, separator, decimal sign and header, found from its start."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...messages import see
from .batches import check_names
from .errors import TableError

SEPARATORS = {",": "a comma", ";": "';'", "\t": "a tab", "|": "'|'"}
#: The start of a file that its form is found from.
SAMPLE_BYTES, SAMPLE_RECORDS = 1 << 18, 200
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
#: Files that are no text, by their first bytes, and what to do.
_BINARY = {
    b"PK\x03\x04": "a spreadsheet or a ZIP archive; save it as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet; save it as CSV",
    b"PAR1": "a Parquet file; name it .parquet",
}
_DECIMAL_COMMA, _DECIMAL_POINT = re.compile(r"-?\d+,\d+"), re.compile(r"-?\d*\.\d+")


@dataclass(frozen=True)
class CSVFormat:
    """What a CSV file is read with.

    Attributes:
        names: of the columns.
        start: where the first row begins, in bytes.
        separator: between the cells.
        decimal: the sign before a number's decimals.
        encoding: of the bytes.
        lines: what is worth telling a user.
    """

    names: tuple[str, ...]
    start: int
    separator: str
    decimal: str
    encoding: str
    lines: tuple[str, ...] = field(default=())


def as_plain_text(path: Path, encoding: str | None) -> tuple[Path, str | None, list[str]]:
    """Return a file that can be read from anywhere, its encoding if known, and lines to tell.

    A compressed file and one of UTF-16 are written to a temporary file, which the caller deletes.

    Raises:
        TableError: the file cannot be read, or is no text.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            head = file.read(SAMPLE_BYTES)
            for start, what in _BINARY.items():
                if head.startswith(start):
                    raise TableError(f"{path}: not a CSV file but {what}" + see("table-file"))
            encoding = encoding or _UTF16.get(head[:2]) or _utf16_without_mark(head)
            wide = encoding is not None and encoding.lower().startswith("utf-16")
            if b"\0" in head and not wide:
                raise TableError(f"{path}: not a text file; save it as CSV" + see("table-file"))
            if not (packed or wide):
                return path, encoding, []
            file.seek(0)
            copy = _written(file, encoding if wide else None)
    except OSError as error:
        raise TableError(
            f"{path}: cannot be read ({error.strerror or error})" + see("table-file")
        ) from None
    except UnicodeError as error:
        raise TableError(f"{path}: not {encoding} text ({error})" + see("table-file")) from None
    lines = ["unpacked into a temporary file"] if packed else []
    return (
        copy,
        ("utf-8" if wide else encoding),
        lines + ([f"encoding {encoding}"] if wide else []),
    )


def _written(file: Any, encoding: str | None) -> Path:
    """A temporary file with the text of another one, as UTF-8 where its encoding is given."""
    handle, name = tempfile.mkstemp(suffix=".csv")
    pieces = iter(lambda: file.read(1 << 20), b"")
    with os.fdopen(handle, "wb") as copy:
        for piece in codecs.iterdecode(pieces, encoding) if encoding else pieces:
            copy.write(piece.encode() if isinstance(piece, str) else piece)
    return Path(name)


def _utf16_without_mark(head: bytes) -> str | None:
    """UTF-16 of mostly Latin letters has a zero in every second byte."""
    if not head or b"\0" not in head:
        return None
    if head[1::2].count(0) > 0.4 * len(head[1::2]) and 0 not in head[::2]:
        return "utf-16-le"
    if head[::2].count(0) > 0.4 * len(head[::2]) and 0 not in head[1::2]:
        return "utf-16-be"
    return None


def find_format(source: str, path: Path, encoding: str | None, separator: str | None) -> CSVFormat:
    """Return the form of a file, whatever of it was not given.

    Args:
        source: what messages call the file.
        path: where it is.
        encoding: None to find it.
        separator: None to find it.

    Raises:
        TableError: the file is empty, has no rows, or two columns of one name.
    """
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
    if len(head) == SAMPLE_BYTES:
        head = head[: head.rfind(b"\n") + 1] or head
    mark = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    encoding = encoding or _encoding_of(path)
    lines = [] if encoding == "utf-8" else [f"encoding {encoding}"]
    try:
        text = _decoded(head[mark:], encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise TableError(f"{source}: not {encoding} text ({error})" + see("table-file")) from None
    if not text.strip():
        raise TableError(
            f"{source}: the file is empty; it needs a header line and rows" + see("table-file")
        )
    found = separator or _separator_of(text)
    if found != ",":
        lines.append(f"separator {SEPARATORS.get(found, repr(found))}")
    records = _records(text, found)
    header, rows = records[0], records[1:]
    if not rows:
        raise TableError(f"{source}: a header line but no rows" + see("table-file"))
    if all(len(row) == len(header) + 1 for row in rows):
        ends_empty = all(not row[-1].strip() for row in rows)  # a separator at the end of each row
        header = [*header, ""] if ends_empty else ["", *header]
        lines += [] if ends_empty else ["the header names all columns but the first"]
    names = tuple(name.strip() or f"column {i}" for i, name in enumerate(header, start=1))
    check_names(source, names)
    decimal = "," if found != "," and _has_decimal_commas(rows) else "."
    if decimal == ",":
        lines.append("decimal comma")
    start = mark + _header_length(head[mark:], text, found)
    return CSVFormat(names, start, found, decimal, encoding, tuple(lines))


def _decoded(head: bytes, encoding: str) -> str:
    """The text of the start of a file, whose last letter may be cut."""
    return codecs.getincrementaldecoder(encoding)().decode(head)


def _encoding_of(path: Path) -> str:
    """UTF-8 if all of the file is; else that of Windows, or Latin-1 where it lacks a byte."""
    found = "utf-8"
    for candidate in ("utf-8", "cp1252", "latin-1"):
        found = candidate
        try:
            with path.open(encoding=candidate, newline="") as file:
                while file.read(1 << 20):
                    pass
        except UnicodeDecodeError:
            continue
        break
    return found


def _records(text: str, separator: str) -> list[list[str]]:
    """The first records; blank lines are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    records: list[list[str]] = []
    try:
        for record in reader:
            if any(cell.strip() for cell in record) or len(record) > 1:
                records.append(record)
            if len(records) > SAMPLE_RECORDS:
                break
    except csv.Error:
        pass  # the reader of all rows says which one it is
    return records or [[text.strip()]]


def _separator_of(text: str) -> str:
    """The candidate that splits most rows as the header, then the one with most columns."""

    def score(separator: str) -> tuple[float, int]:
        header, *rows = _records(text, separator)
        alike = sum(len(header) <= len(row) <= len(header) + 1 for row in rows)
        return (alike / max(len(rows), 1) if len(header) > 1 else 0.0), len(header)

    return max(SEPARATORS, key=score)


def _has_decimal_commas(rows: list[list[str]]) -> bool:
    cells = [cell.strip() for row in rows for cell in row]
    commas = sum(_DECIMAL_COMMA.fullmatch(cell) is not None for cell in cells)
    return commas > 0 and not any(_DECIMAL_POINT.fullmatch(cell) for cell in cells)


def _header_length(head: bytes, text: str, separator: str) -> int:
    """Bytes up to the end of the header, which may have ends of lines inside quotes.

    A quote inside a cell that does not begin with one is a letter: it opens nothing.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for record in reader:
            if any(cell.strip() for cell in record) or len(record) > 1:
                break
    except csv.Error:
        pass  # the reader of all rows says which line it is
    return sum(map(len, head.splitlines(keepends=True)[: reader.line_num]))
