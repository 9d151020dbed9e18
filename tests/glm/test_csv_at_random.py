"""CSV files in random forms, as pandas writes them, give the numbers that were written."""

import csv
import random

import numpy as np
import pandas as pd
import pytest

from pyro_kl.glm.passes.rows import in_memory
from pyro_kl.glm.tables import batches, csv_batches, read_table

#: Texts with what a reader may stumble over; a file has three of them.
TEXTS = [
    "red",
    "gr\nün",
    'a "q"',
    "x,y",
    "z;t",
    "tab\tbed",
    "bar|",
    " spaced ",
    "O'Neil",
    "日本",
    "1a",
]


def table(rng, draw):
    size = draw.choice([5, 30, 200])
    frame = pd.DataFrame(
        {
            "number": rng.standard_normal(size).round(4),
            "integer": rng.integers(-5, 5, size),
            "text": rng.choice(draw.sample(TEXTS, 3), size),
            "flag": rng.random(size) < 0.5,
            "y": rng.choice(["a", "b"], size),
        }
    )
    frame.loc[:1, "y"] = ["a", "b"]
    frame.loc[rng.random(size) < draw.choice([0.0, 0.2]), "number"] = np.nan
    return frame


def written(frame, path, draw):
    """The file, in an encoding that has all of its letters."""
    latin = not frame["text"].str.contains("日").any()
    separator = draw.choice([",", ";", "\t", "|"])
    frame.to_csv(
        path,
        index=False,
        sep=separator,
        decimal=draw.choice([",", "."]) if separator == ";" else ".",
        encoding=draw.choice(["utf-8", "utf-8-sig", "utf-16", "cp1252"][: 4 if latin else 3]),
        lineterminator=draw.choice(["\n", "\r\n"]),
        quoting=draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC, csv.QUOTE_ALL]),
    )


@pytest.mark.parametrize("seed", range(60))
def test_what_was_written_is_read(seed, tmp_path, monkeypatch):
    draw = random.Random(seed)
    rows_of_a_chunk = draw.choice([7, 50, 1000])
    for module in (batches, csv_batches):
        monkeypatch.setattr(module, "ROWS", rows_of_a_chunk)
    monkeypatch.setattr(csv_batches, "LEAST_BYTES", draw.choice([64, 500]))
    frame = table(np.random.default_rng(seed), draw)
    written(frame, tmp_path / "table.csv", draw)
    rows = read_table(tmp_path / "table.csv", "y")
    used = frame.dropna()
    got = in_memory(rows)
    np.testing.assert_array_equal(got.target, used["y"] == "b")
    assert len(rows.names) >= 3
    for name, column in zip(rows.names, got.features.T, strict=True):
        source, _, level = name.partition("=")
        values = used["text"].str.strip() == level if level else used[source]
        np.testing.assert_array_equal(column, values.astype(float), err_msg=name)
