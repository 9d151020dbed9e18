"""Random tables of hypothesis: CSV files as people write them, and tables of Arrow."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from hypothesis import strategies as st

SEPARATORS = (",", ";", "\t", "|")
#: Letters that a reader may stumble over.
LETTERS = "ab1 .,;|\t\"'\n\r-+#é日\u00a0\u2028\u0130😀"
TARGETS = (("a", "b"), ("yes", "no"), ("0", "1"), ("1", "2"), ("True", "False"), ("-1", "1.0"))
MISSING = ("", "NA", "nan", "?", " ", "NULL", "None")
ODD_NUMBERS = (
    "1e308", "-1e308", "1e400", "5e-324", "-0", "0x1F", "1_000", "1.", ".5", "+1", "00012", "inf",
    "9007199254740993", "18446744073709551616", "1e", "1 2", "\u0661", "\u0661\u0662",
)  # fmt: skip
DATES = ("2026-01-02", "2026-01-02 10:00", "1/2/2026", "12:30", "2026-13-45")


@dataclass(frozen=True)
class File:
    """A CSV file.

    Attributes:
        content: its bytes.
        separator: between the cells.
        target: the name of the column to predict.
        header: the names of the columns, and
        rows: the cells, as they were written; None where something was damaged afterwards.
    """

    content: bytes
    separator: str
    target: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...] | None


def _numbers(draw: st.DrawFn) -> st.SearchStrategy[str]:
    plain = st.floats(-1e6, 1e6).map("{:.6g}".format) | st.integers(-99, 99).map(str)
    if draw(st.booleans()):
        return plain
    kinds = [plain, st.sampled_from(MISSING), plain.map(" {} ".format)]
    if draw(st.integers(0, 3)) == 0:
        kinds.append(st.sampled_from(ODD_NUMBERS))
    return st.one_of(kinds)


def _column(draw: st.DrawFn) -> st.SearchStrategy[str]:
    """The cells of one column."""
    texts = st.text(LETTERS, max_size=6)
    kind = draw(st.sampled_from(("number", "number", "level", "text", "date", "flag", "constant")))
    if kind == "number":
        return _numbers(draw)
    if kind == "level":
        return st.sampled_from(draw(st.lists(texts, min_size=1, max_size=4)))
    if kind == "text":
        return texts
    if kind == "date":
        return st.sampled_from(DATES)
    if kind == "flag":
        return st.sampled_from(("true", "false", "True", ""))
    return st.just(draw(texts))


def _labels(draw: st.DrawFn, values: Sequence[object], length: int) -> list[object]:
    """The target's cells; most targets have all of the values."""
    labels = draw(st.lists(st.sampled_from(values), min_size=length, max_size=length))
    return [*values, *labels][:length] if draw(st.integers(0, 4)) else labels


@st.composite
def files(draw: st.DrawFn) -> File:
    """A CSV file: most can be fitted, some are damaged."""
    width, length = draw(st.integers(1, 5)), draw(st.integers(0, 40))
    names = draw(
        st.lists(st.text(LETTERS, max_size=4), min_size=width, max_size=width, unique=True)
        if draw(st.integers(0, 4))
        else st.lists(st.sampled_from(("a", "b", "")), min_size=width, max_size=width)
    )
    values = draw(st.sampled_from((*TARGETS, ("a", "b", "c"), ("a",))))
    labels = _labels(draw, values, length)
    columns = [draw(st.lists(_column(draw), min_size=length, max_size=length)) for _ in names]
    place = draw(st.integers(0, width))
    header = (*names[:place], "target", *names[place:])
    rows = tuple(zip(*columns[:place], labels, *columns[place:], strict=True))
    separator = draw(st.sampled_from(SEPARATORS))
    text = io.StringIO(newline="")
    writer = csv.writer(
        text,
        delimiter=separator,
        lineterminator=draw(st.sampled_from(("\n", "\r\n"))),
        quoting=draw(st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC))),
    )
    writer.writerows([header, *rows])
    encoding = draw(st.sampled_from(("utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252")))
    content = text.getvalue().encode(encoding, errors="replace")
    damage = draw(st.sampled_from(("none",) * 6 + ("cut", "byte", "quote", "line", "ragged")))
    at = draw(st.integers(0, len(content)))
    more = {"byte": bytes([draw(st.integers(0, 255))]), "quote": b'"', "line": b"\n",
            "ragged": separator.encode()}  # fmt: skip
    if damage == "cut":
        content = content[:at]
    elif damage != "none":
        content = content[:at] + more[damage] + content[at:]
    clean = damage == "none" and content.decode(encoding) == text.getvalue()
    return File(content, separator, "target", header, rows if clean else None)


_TYPES = (
    (pa.float64(), st.floats(allow_nan=True) | st.floats(-9, 9)),
    (pa.float64(), st.floats(-9, 9)),
    (pa.float32(), st.floats(-9, 9, width=32)),
    (pa.float16(), st.floats(-9, 9, width=16)),
    (pa.int8(), st.integers(-128, 127)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.bool_(), st.booleans()),
    (pa.string(), st.sampled_from(("x", "y", " x", "NA", ""))),
    (pa.large_string(), st.text(max_size=3)),
    (pa.string(), st.floats(-9, 9).map("{:.3f}".format)),
    (pa.binary(), st.binary(max_size=3)),
    (pa.date32(), st.dates()),
    (pa.timestamp("us", "UTC"), st.datetimes(datetime.datetime(1970, 1, 2))),
    (pa.duration("s"), st.timedeltas(datetime.timedelta(0), datetime.timedelta(9))),
    (pa.time64("us"), st.times()),
    (pa.decimal128(9, 2), st.decimals(-99, 99, places=2)),
    (pa.list_(pa.int8()), st.lists(st.integers(0, 9), max_size=2)),
    (pa.struct({"a": pa.int8()}), st.fixed_dictionaries({"a": st.integers(0, 9)})),
    (pa.map_(pa.string(), pa.int8()), st.just([("k", 1)])),
    (pa.null(), st.none()),
    (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(("x", "y", "z"))),
    (pa.dictionary(pa.int8(), pa.int64()), st.sampled_from((1, 2, 3))),
    (pa.dictionary(pa.int8(), pa.float64()), st.sampled_from((1.5, 2.5))),
    (pa.dictionary(pa.int8(), pa.bool_()), st.booleans()),
    (pa.string_view(), st.sampled_from(("x", "y"))),
)


@st.composite
def arrow_tables(draw: st.DrawFn) -> pa.Table:
    """A table of Arrow with columns of any types, and one that is called target."""
    width, length = draw(st.integers(1, 5)), draw(st.integers(0, 40))
    columns, names = [], []
    for i in range(width):
        kind, values = draw(st.sampled_from(_TYPES))
        if draw(st.booleans()):
            values = values | st.none()
        cells = draw(st.lists(values, min_size=length, max_size=length))
        columns.append(pa.array(cells, kind))
        names.append(draw(st.sampled_from((*[f"c{i}"] * 9, "c0", f"é={i}"))))
    kind, values = draw(
        st.sampled_from(
            (
                (pa.string(), ("no", "yes")), (pa.int64(), (0, 1)), (pa.bool_(), (False, True)),
                (pa.float32(), (-1.0, 1.0)), (pa.dictionary(pa.int8(), pa.string()), ("a", "b")),
                (pa.string(), ("a", "b", None)), (pa.decimal128(5, 1), (0, 1)),
                (pa.date32(), (datetime.date(2026, 1, 1), datetime.date(2026, 1, 2))),
                (pa.list_(pa.int8()), ([1], [2])), (pa.binary(), (b"a", b"b")),
                (pa.dictionary(pa.int8(), pa.int64()), (3, 4)),
            )
        )
    )  # fmt: skip
    labels = _labels(draw, values, length)
    table = pa.Table.from_arrays([*columns, pa.array(labels, kind)], [*names, "target"])
    if length > 3 and draw(st.booleans()):  # in two pieces
        table = pa.concat_tables([table.slice(0, 2), table.slice(2)])
    return table
