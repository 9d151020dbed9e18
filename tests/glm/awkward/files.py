"""Awkward tables on disk and in memory: what is in each, and what a user is told."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

NUM_ROWS = 60


@dataclass(frozen=True)
class Awkward:
    """A table that fits, with these features and this line, or gets one line of error.

    Attributes:
        make: writes the table into a folder, or returns one in memory.
        names: of the features; None where the table is refused.
        says: a part of the error, or of a line of the report.
        left_out: how many rows are.
        options: of `read_table`.
    """

    make: Callable[[Path], Any]
    names: tuple[str, ...] | None
    says: str = ""
    left_out: int = 0
    options: dict[str, Any] = field(default_factory=dict)


def columns(**more: Any) -> pd.DataFrame:
    """Columns a and b, a target y that depends on a, and what is given."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal(NUM_ROWS).round(3)
    b = rng.integers(0, 5, NUM_ROWS)
    y = np.where(rng.random(NUM_ROWS) < 1 / (1 + np.exp(-2 * a)), "yes", "no")
    return pd.DataFrame({**more, "a": a, "b": b, "y": y})


def spread(values: list[Any]) -> np.ndarray:
    """The values, over and over."""
    return np.array((values * NUM_ROWS)[:NUM_ROWS])


def with_holes(values: Any, holes: list[int], hole: Any = np.nan) -> list[Any]:
    return [hole if i in holes else value for i, value in enumerate(values)]


def text(content: str | bytes, name: str = "table.csv") -> Callable[[Path], Path]:
    """A file with this content."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def comma(frame: pd.DataFrame, **options: Any) -> str:
    return frame.to_csv(index=False, **options)


def table(frame: pd.DataFrame, **options: Any) -> Callable[[Path], Path]:
    """A CSV file of a data frame."""
    return text(comma(frame, **options))


def frame(table: pd.DataFrame) -> Callable[[Path], pd.DataFrame]:
    """A data frame in memory."""
    return lambda folder: table


def permuted_shards(folder: Path) -> Path:
    whole = columns(colour=spread(["red", "blue"]))
    for i, order in enumerate((["a", "b", "colour", "y"], ["y", "colour", "b", "a"])):
        part = pa.Table.from_pandas(whole[order].iloc[i::2], preserve_index=False)
        pq.write_table(part, folder / f"{i}.parquet")
    return folder


def short_shards(folder: Path) -> Path:
    permuted_shards(folder)
    part = pa.Table.from_pandas(columns(), preserve_index=False)
    pq.write_table(part, folder / "2.parquet")
    return folder


def twice(frame: pd.DataFrame) -> pa.Table:
    """A table with two columns of one name."""
    arrays = [pa.array(frame["a"]), pa.array(frame["b"]), pa.array(frame["y"])]
    return pa.Table.from_arrays(arrays, ["a", "a", "y"])


PLAIN = columns()
GERMAN = columns(farbe=spread(["grün", "weiß", "blau"]))
AB = ("a", "b")

TABLES = {
    # --- how a file is written
    "semicolons": Awkward(table(PLAIN, sep=";"), AB, "separator ';'"),
    "semicolons and decimal commas": Awkward(
        table(PLAIN, sep=";", decimal=","), AB, "decimal comma"
    ),
    "tabs": Awkward(table(PLAIN, sep="\t"), AB, "separator a tab"),
    "bars": Awkward(table(PLAIN, sep="|"), AB, "separator '|'"),
    "byte order mark": Awkward(text(comma(PLAIN).encode("utf-8-sig")), AB),
    "windows encoding": Awkward(
        text(comma(GERMAN).encode("cp1252")),
        ("farbe=grün", "farbe=weiß", "a", "b"),
        "encoding cp1252",
    ),
    "utf-16": Awkward(
        text(comma(GERMAN).encode("utf-16")), ("farbe=grün", "farbe=weiß", "a", "b"), "utf-16"
    ),
    "the wrong encoding asked for": Awkward(
        text(comma(GERMAN).encode("cp1252")),
        None,
        "table.csv: not utf-8 text",
        options={"encoding": "utf-8"},
    ),
    "the wrong encoding asked for, found late": Awkward(
        text((comma(PLAIN) + comma(PLAIN, header=False) * 400).encode() + b"1,\xff,yes\n"),
        None,
        "column 'b' is not utf-8 text",
        options={"encoding": "utf-8"},
    ),
    "ends of lines of Windows": Awkward(table(PLAIN, lineterminator="\r\n"), AB),
    "no end of the last line": Awkward(text(comma(PLAIN).rstrip("\n")), AB),
    "blank lines": Awkward(text("\n" + comma(PLAIN).replace("\n", "\n\n")), AB),
    "separators at the ends of lines": Awkward(
        text(comma(PLAIN).replace("\n", ",\n")), AB, "column 4: left out, all values are missing"
    ),
    "separators at the ends of rows": Awkward(
        text(comma(PLAIN).replace("\n", ",\n").replace("y,\n", "y\n", 1)), AB, "column 4: left out"
    ),
    "spaces around the cells": Awkward(text(comma(PLAIN).replace(",", " , ")), AB),
    "quoted ends of lines": Awkward(
        table(columns(note=spread(["one\nline", 'a "quoted", word', "plain"]))),
        ("note=one\nline", "note=plain", "a", "b"),
        "note: 3 levels",
    ),
    "a quote in a name": Awkward(
        text(comma(PLAIN).replace("a,b,y", 'a,b 5",y', 1)), ("a", 'b 5"')
    ),
    "a quote at the start of a name": Awkward(
        text(comma(PLAIN).replace("a,b,y", 'a,"""b\n2",y', 1)), ("a", '"b\n2')
    ),
    "compressed": Awkward(
        text(gzip.compress(comma(PLAIN).encode()), "table.csv.gz"), AB, "unpacked"
    ),
    "row names without a header": Awkward(
        text(PLAIN.to_csv(index=True)), AB, "column 1: left out, numbers the rows"
    ),
    "row names as R writes them": Awkward(
        text(PLAIN.to_csv(index=True, sep="\t").removeprefix("\t")),
        AB,
        "the header names all columns but the first",
    ),
    # --- files that are none
    "empty": Awkward(text(""), None, "table.csv: the file is empty; it needs a header line"),
    "header only": Awkward(text("a,b,y\n"), None, "table.csv: a header line but no rows"),
    "a spreadsheet": Awkward(text(b"PK\x03\x04\0\0"), None, "save it as CSV"),
    "zeros": Awkward(text(b"a,y\n\0,1\n"), None, "table.csv: not a text file"),
    "no file": Awkward(lambda folder: folder / "none.csv", None, "none.csv: no such file"),
    "an empty folder": Awkward(lambda folder: folder, None, "a folder without Parquet files"),
    "no parquet": Awkward(text("a,y\n1,2\n", "t.parquet"), None, "cannot be read as Parquet"),
    "a short row": Awkward(
        text(comma(PLAIN) + "1,2\n"), None, "line 62 has 2 cells where the header has 3"
    ),
    "a quote that is never closed": Awkward(
        text(comma(PLAIN) + '1,"2,yes\n3,4,no\n'), None, "line 62 has 2 cells"
    ),
    "a long cell that ends nowhere": Awkward(
        text(comma(PLAIN) + '1,"' + "2" * 200_000), None, "line 62 has a quote that ends nowhere"
    ),
    "no rows in memory": Awkward(frame(PLAIN.head(0)), None, "the table: there are no rows"),
    # --- the target
    "no target": Awkward(
        table(PLAIN), None, "no column 'z'; the columns are a, b, y", options={"target": "z"}
    ),
    "a target of three values": Awkward(
        table(columns().replace({"y": {"no": "never"}}).assign(y=spread(["a", "b", "c"]))),
        None,
        "the target 'y' is not binary: it has 3 distinct values ('a', 'b', 'c')",
    ),
    "one class": Awkward(
        table(PLAIN.assign(y=1)), None, "the target 'y' has one class only ('1')"
    ),
    "one row": Awkward(table(PLAIN.head(1)), None, "has one class only"),
    "a target of dates": Awkward(
        frame(PLAIN.assign(y=pd.Timestamp("2026-01-01"))), None, "two values are needed"
    ),
    "a target with missing values": Awkward(
        table(PLAIN.assign(y=with_holes(PLAIN["y"], [3, 4], "NA"))),
        AB,
        "y: 2 rows without a target are left out",
        left_out=2,
    ),
    "a target of -1 and 1": Awkward(
        table(PLAIN.assign(y=spread([-1, 1]))), AB, "target: 1 is 'y = 1' (30 rows), 0 is '-1'"
    ),
    "a target of 9 and 10": Awkward(
        table(PLAIN.assign(y=spread([9, 10]))), AB, "target: 1 is 'y = 10' (30 rows), 0 is '9'"
    ),
    "yes and No": Awkward(
        table(PLAIN.assign(y=spread(["Yes ", "no"]))), AB, "target: 1 is 'y = Yes'"
    ),
    "a positive value": Awkward(
        table(PLAIN), AB, "target: 1 is 'y = no'", options={"positive": "no"}
    ),
    "a positive value that never is": Awkward(
        table(PLAIN),
        None,
        "the target 'y' is never 'nein'; it is 'no' and 'yes'",
        options={"positive": "nein"},
    ),
    "a boolean target": Awkward(
        frame(PLAIN.assign(y=spread([True, False]))), AB, "target: 1 is 'y = true'"
    ),
    # --- columns
    "no features": Awkward(table(PLAIN[["y"]]), None, "no feature columns besides the target 'y'"),
    "only an identifier": Awkward(
        table(PLAIN[["y"]].assign(id=range(NUM_ROWS))),
        None,
        "no feature columns besides the target (id: left out, numbers the rows)",
    ),
    "two columns of one name": Awkward(
        text(comma(PLAIN).replace("a,b", "a,a", 1)), None, "column 'a' appears more than once"
    ),
    "two columns of one name in arrow": Awkward(
        lambda folder: twice(PLAIN), None, "column 'a' appears more than once"
    ),
    "text": Awkward(
        table(columns(colour=spread(["red", "blue", "red", "green"]))),
        ("colour=blue", "colour=green", "a", "b"),
        "colour: 3 levels; the reference is 'red', features 'blue', 'green'",
    ),
    "missing values": Awkward(
        text(
            comma(columns(sex=with_holes(spread(["m", "f", "m"]), [0, 5], "?")))
            .replace("\n?,", "\n ? ,", 1)
            .replace(",1,", ",n/a,", 1)
        ),
        ("sex=f", "a", "b"),
        "sex: 2 of 60 values are missing, the rows are left out",
        left_out=3,
    ),
    "no row without a missing value": Awkward(
        table(
            columns(
                c=with_holes(PLAIN["a"], list(range(0, NUM_ROWS, 2))),
                d=with_holes(PLAIN["a"], list(range(1, NUM_ROWS, 2))),
            )
        ),
        None,
        "every row has a missing value; fill values in (impute), or drop",
    ),
    "missing values filled in": Awkward(
        table(columns(sex=with_holes(spread(["m", "f", "m"]), [0, 5], "NaN"))),
        ("sex=f", "a", "b"),
        "sex: 2 of 60 values are missing, and become 'm'",
        options={"impute": True},
    ),
    "a column of missing values": Awkward(
        table(columns(none=np.nan)), AB, "none: left out, all values are missing"
    ),
    "identifiers": Awkward(
        table(columns(id=range(100, 100 + NUM_ROWS), key=[f"k{i}" for i in range(NUM_ROWS)])),
        AB,
        "key: left out, an identifier: each value is there once",
    ),
    "repeated identifiers": Awkward(
        table(columns(patient_id=spread([7, 9, 4]))),
        ("patient_id", "a", "b"),
        "patient_id: used as a number; drop it if it is an identifier",
    ),
    "integers that all differ": Awkward(
        table(columns(income=[(7 * i) % 61 * 1000 for i in range(1, NUM_ROWS + 1)])),
        ("income", "a", "b"),
        "income: all values differ; drop it if it is an identifier",
    ),
    "many levels": Awkward(
        table(columns(name=[f"n{i // 2}" for i in range(NUM_ROWS)])),
        AB,
        "name: left out, 30 levels or more, and no more than 20 are encoded",
        options={"max_levels": 20},
    ),
    "constant columns": Awkward(table(columns(k=7, word="same")), AB, "word: left out, constant"),
    "dates": Awkward(
        table(columns(day=pd.date_range("2026-01-01", periods=NUM_ROWS).strftime("%Y-%m-%d"))),
        AB,
        "day: left out, a date or time",
    ),
    "dates as text": Awkward(
        table(columns(day=spread(["1.2.2026", "30.11.2025"]))), AB, "day: left out, a date or time"
    ),
    "booleans": Awkward(
        table(columns(works=spread([True, False]))), ("works", "a", "b"), "works: 1 is true"
    ),
    "numbers and text in one column": Awkward(
        table(columns(mix=with_holes(range(NUM_ROWS), [7, 9], "unknown"))),
        None,
        "column 'mix' has numbers and text ('unknown')",
    ),
    "numbers and a word for missing": Awkward(
        table(columns(mix=with_holes(range(0, 2 * NUM_ROWS, 2), [7, 9], "unknown"))),
        ("mix", "a", "b"),
        "mix: 2 of 60 values are missing",
        left_out=2,
        options={"missing": ["Unknown"]},
    ),
    "few numbers and text": Awkward(
        table(columns(rooms=spread(["1", "2", "more"]))),
        ("rooms=2", "rooms=more", "a", "b"),
        "rooms: 3 levels",
    ),
    "numbers as text": Awkward(
        frame(columns(size=[f" {i / 4} " for i in range(NUM_ROWS)])),
        ("size", "a", "b"),
        "size: text that is numbers only",
    ),
    "infinite": Awkward(
        text(comma(PLAIN) + "-inf,2,no\n"), None, "row 62, column 'a': not finite; drop the column"
    ),
    "huge integers": Awkward(
        table(columns(big=[str(10**25 + i % 3 * 10**23) for i in range(NUM_ROWS)])),
        ("big", "a", "b"),
    ),
    "names of many letters": Awkward(
        table(PLAIN.rename(columns={"a": "x" * 500})), ("x" * 500, "b")
    ),
    "names of all alphabets": Awkward(
        table(PLAIN.rename(columns={"a": "größe µ²", "b": "年齢 🙂"})), ("größe µ²", "年齢 🙂")
    ),
    "names with separators": Awkward(
        table(PLAIN.rename(columns={"a": 'size, "net"', "b": "b\nc"})), ('size, "net"', "b\nc")
    ),
    "nullable types of pandas": Awkward(
        frame(PLAIN.astype({"b": "Int64", "a": "Float64", "y": "string"})), AB
    ),
    "missing values of pandas": Awkward(
        frame(PLAIN.assign(b=pd.array(with_holes(PLAIN["b"], [1], None), dtype="Int64"))),
        AB,
        "b: 1 of 60 values are missing",
        left_out=1,
    ),
    "categories of pandas": Awkward(
        frame(columns(colour=pd.Categorical(spread(["s", "l", "s"]), ["s", "m", "l"]))),
        ("colour=l", "a", "b"),
        "colour: 2 levels",
    ),
    "categories that are numbers": Awkward(
        frame(columns(ward=pd.Categorical(spread([3, 1, 3])))),
        ("ward=1", "a", "b"),
        "ward: 2 levels",
    ),
    "a dictionary of arrow": Awkward(
        lambda folder: pa.table(
            {
                "c": pa.array(spread(["u", "v", None]), from_pandas=True).dictionary_encode(),
                **{name: pa.array(PLAIN[name]) for name in PLAIN},
            }
        ),
        ("c=v", "a", "b"),
        "c: 20 of 60 values are missing",
        left_out=20,
    ),
    "a column of lists": Awkward(
        lambda folder: pa.table(
            {
                "c": pa.array([[1.0, 2.0]] * NUM_ROWS),
                **{name: pa.array(PLAIN[name]) for name in PLAIN},
            }
        ),
        AB,
        "c: left out, of the type list",
    ),
    "shards in other orders": Awkward(permuted_shards, ("a", "b", "colour=red")),
    "a shard without a column": Awkward(short_shards, None, "2.parquet: no column 'colour'"),
    "negative weights": Awkward(
        table(columns(w=spread([1, -1]))),
        None,
        "row 3: the weight 'w' is negative",
        options={"weight": "w"},
    ),
    "weights of 0": Awkward(table(columns(w=spread([0, 1]))), AB, options={"weight": "w"}),
}
