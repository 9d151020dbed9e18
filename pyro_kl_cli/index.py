"""The registered pairs and the classes as `tools/pair_index.py` has stored them: without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from .refused import Refused, did_you_mean

PATH = Path(__file__).with_name("index.json")


@dataclass(frozen=True)
class IndexedPair:
    """A registered pair in words.

    Attributes:
        p: name of the class of the first argument.
        q: name of the class of the second argument.
        method: "closed form", "exact sum", "quadrature", ...
        finite: when the KL is finite.
        reference: author, year, equation.
        source: the modules that declare it.
        replaces: why a formula of torch's or Pyro's is replaced; None if none is.
        derivation: the docstring of the formula.
        terms: the code of each term of a derived formula, by its name.
        error: the largest relative error, over how many reference values, and which; None if it
            was not measured.
    """

    p: str
    q: str
    method: str
    finite: str
    reference: str
    source: str
    replaces: str | None
    derivation: str | None
    terms: dict[str, str]
    error: tuple[float, int, str] | None

    @property
    def name(self) -> str:
        return f"{self.p} || {self.q}"


class Index:
    """The content of the index."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.versions: dict[str, str] = content["versions"]
        self.names: list[str] = content["names"]
        self.classes: list[list[str]] = content["classes"]
        self.content = content

    @cached_property
    def pairs(self) -> tuple[IndexedPair, ...]:
        """Every registered pair, in the order of their names."""
        return tuple(self._pair(row) for row in self.content["pairs"])

    def _pair(self, row: Sequence[Any]) -> IndexedPair:
        texts = self.content["texts"]
        fields: dict[str, Any] = dict(zip(self.content["columns"], row, strict=True))
        terms, error = fields.pop("terms"), fields.pop("error")
        words: dict[str, Any]
        words = {name: None if at is None else texts[at] for name, at in fields.items()}
        return IndexedPair(
            **words,
            terms={texts[name]: texts[code] for name, code in terms},
            error=error and (error[0], error[1], texts[error[2]]),
        )

    @cached_property
    def sides(self) -> frozenset[str]:
        """The classes that pairs are registered for."""
        return frozenset(side for pair in self.pairs for side in (pair.p, pair.q))

    def pair_of(self, p: str, q: str) -> IndexedPair | None:
        """The pair that torch's dispatch calls for two classes; None if it is not pyro_kl's."""
        by_name = {pair.name: pair for pair in self.pairs}
        if f"{p} || {q}" in by_name:
            return by_name[f"{p} || {q}"]
        dispatched = self.content["dispatched"].items()
        return next((by_name[name] for name, cells in dispatched if [p, q] in cells), None)

    def registered_as(self, name: str) -> str:
        """The class itself, or the nearest base class that pairs are registered for."""
        return self.content["registered_as"].get(name, name)

    def class_named(self, word: str) -> str:
        """The class of that name; lower and upper case are the same.

        Raises:
            Refused: there is none; the message suggests similar names.
        """
        known = {*self.names, *self.sides}
        if word in known:
            return word
        folded = {name.lower(): name for name in known}
        if word.lower() in folded:
            return folded[word.lower()]
        hint = did_you_mean(word, known, "`pyro-kl classes` lists them.")
        raise Refused(f"{word!r} is not a class of pyro.distributions; {hint}")


@cache
def index() -> Index:
    """The stored index."""
    return Index(json.loads(PATH.read_text(encoding="utf-8")))
