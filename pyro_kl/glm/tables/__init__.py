"""Rows of tables: Parquet, Arrow, pandas and CSV, also of files larger than memory."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ...messages import see
from .errors import TableError

if TYPE_CHECKING:
    from .table_rows import TableRows

__all__ = ["TableError", "read_table"]


def read_table(
    source: Any,
    target: str,
    *,
    counts: bool = False,
    positive: object | None = None,
    drop: Sequence[str] = (),
    keep: Sequence[str] = (),
    weight: str | None = None,
    impute: bool = False,
    standardise: bool = False,
    missing: Sequence[str] = (),
    max_levels: int = 100,
    dtype: torch.dtype | None = None,
    separator: str | None = None,
    encoding: str | None = None,
) -> TableRows:
    """Open a table whose rows are fitted chunk by chunk; only a chunk or two are in memory.

    Columns are found by name, so that files may have them in different orders. A column of text is
    encoded as one feature, 0 or 1, for each of its levels but the most frequent one. Dates,
    columns with one value only, columns that number the rows and texts that are all different are
    left out. ``report`` of the result has a line on each of these, and on missing values.

    Opening reads the columns of text and the target; numbers are read too in a table of at most a
    million rows, and in a CSV file.

    Args:
        source: the path of a Parquet, Arrow or CSV file or of a folder of Parquet files; a list of
            paths of Parquet files; a table or data set of Arrow, a DataFrame of pandas or polars,
            or a data set of Hugging Face.
        target: the column to predict; it has two values, or counts.
        counts: whether it has counts, for `PoissonRegression`.
        positive: the value of the target that is 1; None for "yes", "true", "1" and their like,
            else the second in order.
        drop: columns that are not used.
        keep: columns that are used even if they look like identifiers or have many levels.
        weight: the column of the rows' weights, at least 0.
        impute: whether a missing number becomes the column's mean and a missing text its most
            frequent level; else a row with a missing value is left out.
        standardise: whether numbers are shifted and scaled to mean 0 and standard deviation 1.
        missing: more words that mean a missing value, besides "", "NA", "nan", "null", "?" and
            their like.
        max_levels: a text with more levels is left out.
        dtype: of the features; None for float32 if that is what the numbers have, else float64.
        separator: between the cells of a CSV file; None to find it.
        encoding: of a CSV file; None to find it.

    Returns:
        The rows, for ``fit``.

    Raises:
        TableError: the table cannot be used; one line that says why.
        ImportError: pyarrow is not installed.

    Example:
        >>> import pandas
        >>> table = pandas.DataFrame({"x": [0.5, 1.5, 2.5], "y": ["no", "yes", "yes"]})
        >>> rows = read_table(table, "y")
        >>> rows.names, rows.chunk(0).target
        (('x',), tensor([0., 1., 1.], dtype=torch.float64))
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise ImportError(
            "tables are read with pyarrow: pip install 'pyro-kl[glm]'" + see("missing-library")
        )
    from .open_table import open_table

    return open_table(
        source,
        target,
        counts=counts,
        positive=positive,
        drop=drop,
        keep=keep,
        weight=weight,
        impute=impute,
        standardise=standardise,
        missing=missing,
        max_levels=max_levels,
        dtype=dtype,
        separator=separator,
        encoding=encoding,
    )
