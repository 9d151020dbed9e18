"""Rows of a result as a data frame of pandas, polars or another library, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from ..messages import see

#: The libraries that are tried, in this order, if nobody names one.
LIBRARIES = ("pandas", "polars", "pyarrow")


def data_frame(
    rows: Sequence[Mapping[str, Any]], backend: str | ModuleType | None, index: str | None
) -> Any:
    """A data frame with a row for each dictionary.

    Args:
        rows: one dictionary each; a key that one of them lacks is None there.
        backend: the library: "pandas", "polars", "pyarrow", or another one that narwhals knows;
            None for the first of these that is installed.
        index: the column that becomes the index where the library has one.

    Raises:
        ImportError: no such library is installed, or narwhals is not.
    """
    library = backend or next(filter(find_spec, LIBRARIES), None)
    if library is None:
        raise ImportError(_missing("a library of data frames") + see("missing-library"))
    names = dict.fromkeys(name for row in rows for name in row)
    data = {name: [row.get(name) for row in rows] for name in names}
    if "pandas" in (library, getattr(library, "__name__", "")):
        frame = _imported("pandas").DataFrame(data)
        return frame.set_index(index) if index and rows else frame
    plain = {name: _plain(values) for name, values in data.items()}
    return _imported("narwhals").from_dict(plain, backend=library).to_native()


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """One JSON object on a line for each row; null for infinity and not-a-number."""
    return "".join(json.dumps(_finite(row)) + "\n" for row in rows)


def _imported(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ImportError(_missing(name) + see("missing-library")) from None


def _missing(what: str) -> str:
    return (
        f"to_dataframe() needs {what}: pip install 'pyro-kl[report]'; to_dicts() and "
        "to_json_lines() do without."
    )


def _plain(values: list[Any]) -> list[Any]:
    """Cells of one type: a column with lists has all of its cells as JSON."""
    if not any(isinstance(value, (list, tuple)) for value in values):
        return values
    return [None if value is None else json.dumps(_finite(value)) for value in values]


def _finite(value: Any) -> Any:
    """The value, with None in the place of infinity and not-a-number."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
