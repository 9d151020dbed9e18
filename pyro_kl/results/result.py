"""Result: the base class of what pyro_kl returns."""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar

from .table import Table


class Result:
    """Prints as a table of at most 80 columns, and becomes dictionaries, JSON or a data frame.

    A subclass defines `to_dicts` and `_table`; all else follows from them. Notebooks and rich show
    the table in their own way.
    """

    __slots__ = ()
    #: The column that becomes the index of a pandas.DataFrame.
    _index: ClassVar[str | None] = None

    def _table(self) -> Table:
        """What is shown."""
        raise NotImplementedError

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary for each row."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self._table().text()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        return self._table().html()

    def __rich__(self) -> Any:
        return self._table().rich()

    def to_json_lines(self) -> str:
        """One JSON object on a line for each row; infinity and not-a-number become null."""
        from .data_frame import json_lines

        return json_lines(self.to_dicts())

    def to_dataframe(self, backend: str | ModuleType | None = None) -> Any:
        """A data frame with one row for each of `to_dicts`.

        Args:
            backend: the library that it is of: "pandas", "polars", "pyarrow", or another one that
                narwhals knows. None is the first of these three that is installed.

        Raises:
            ImportError: the library is not installed: `pip install 'pyro-kl[report]'`.
        """
        from .data_frame import data_frame

        return data_frame(self.to_dicts(), backend, self._index)
