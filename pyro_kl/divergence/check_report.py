"""The results of `check`, as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..results.result import Result
from ..results.table import Table

_WORDS = {True: "ok", False: "FAILED", None: "not tried"}


@dataclass(frozen=True)
class CheckResult:
    """The result of one check of one pair.

    Attributes:
        pair: "p || q".
        check: what was checked, in a word or two.
        ok: True if it passed, False if it failed, None if it could not be tried.
        detail: what disagrees, with both numbers; or why it could not be tried.
    """

    pair: str
    check: str
    ok: bool | None
    detail: str = ""


@dataclass(frozen=True, repr=False)
class CheckReport(Result):
    """The results of every check; prints as a table.

    Attributes:
        results: a `CheckResult` for each check of each pair.
    """

    results: tuple[CheckResult, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The checks that failed."""
        return tuple(result for result in self.results if result.ok is False)

    def _table(self) -> Table:
        names = dict.fromkeys(result.pair for result in self.results)
        # for several pairs only failures have a line of their own
        shown = self.results if len(names) == 1 else self.failures
        rows = [(r.pair, r.check, _WORDS[r.ok], r.detail) for r in shown]
        passed = sum(result.ok is True for result in self.results)
        tried = sum(result.ok is not None for result in self.results)
        total = f"{passed} of {tried} checks passed; pairs: {len(names)}"
        return Table(("pair", "check", "result", "detail"), rows, notes=[total])

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary for each check of each pair."""
        return [asdict(result) for result in self.results]
