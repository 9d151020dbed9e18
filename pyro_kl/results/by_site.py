"""BySite: the results that have a row for each site of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from ..messages import see
from .result import Result

#: How many names of sites a message or a note lists.
_LISTED = 12


def shortened(names: Sequence[str]) -> str:
    """Names of sites; of many the first two, the last, and how many they are."""
    if len(names) <= _LISTED:
        return ", ".join(names)
    return f"{names[0]}, {names[1]}, ..., {names[-1]} ({len(names)} sites)"


class OfSite(Protocol):
    """A row of a result."""

    @property
    def site(self) -> str:
        """The name of the site."""


Row = TypeVar("Row", bound=OfSite)


class BySite(Result, Generic[Row]):
    """Rows that are found by the name of their site: `result["scale"]`."""

    __slots__ = ()
    #: The attribute that has the rows.
    _rows: ClassVar[str] = "sites"

    def _site_rows(self) -> tuple[Row, ...]:
        rows: Any = getattr(self, self._rows)
        return tuple(rows)

    def __getitem__(self, site: str) -> Row:
        for row in self:
            if row.site == site:
                return row
        raise KeyError(
            f"no site {site!r}; there are {shortened([row.site for row in self])}"
            + see("no-such-site")
        )

    def __iter__(self) -> Iterator[Row]:
        return iter(self._site_rows())

    def __len__(self) -> int:
        return len(self._site_rows())
