"""A registered pair, its worked cases, and the table of all pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..messages import without_link
from ..results.result import Result
from ..results.table import Table
from ..results.text import WIDTH
from .provenance import home_of

Formula = Callable[[Any, Any], Tensor]
#: Relative tolerance between a formula and a worked case, which may be written in few digits.
CASE_DIGITS = 1e-6


@dataclass(frozen=True)
class Case:
    """A worked example: constructor arguments of p and q, and the KL in nats at 30 digits."""

    p: Mapping[str, Any]
    q: Mapping[str, Any]
    value: float
    source: str = "50 digits, from the densities"


@dataclass(frozen=True)
class Pair:
    """A registered pair: its formula, and what the table of pairs says of it."""

    p: type[Distribution]
    q: type[Distribution]
    method: str
    finite: str
    reference: str
    formula: Formula = field(repr=False)
    cases: tuple[Case, ...] = field(default=(), repr=False)
    replaces: str | None = None
    derived: bool = False
    declared_in: tuple[str, ...] = ()
    make_p: Callable[..., Distribution] | None = field(default=None, repr=False)
    make_q: Callable[..., Distribution] | None = field(default=None, repr=False)
    terms: Mapping[str, Callable[..., Any]] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return f"{self.p.__name__} || {self.q.__name__}"

    @property
    def owner(self) -> str:
        """The formula's function, by its name."""
        return f"{self.formula.__module__}.{self.formula.__qualname__}"

    def made(self, case: Case) -> tuple[Distribution, Distribution]:
        """The two distributions of a worked case, in float64."""
        builds: tuple[Callable[..., Distribution], ...]
        builds = (self.make_p or self.p, self.make_q or self.q)
        p, q = (
            build(**{name: torch.as_tensor(x, dtype=torch.float64) for name, x in given.items()})
            for build, given in zip(builds, (case.p, case.q), strict=True)
        )
        return p, q

    def wrong_case(self, case: Case) -> str:
        """What is wrong with a case in words; "" if the formula agrees to 6 digits."""
        cell = f"the worked case p = {dict(case.p)}, q = {dict(case.q)}"
        try:
            found = torch.as_tensor(self.formula(*self.made(case)))
        except Exception as error:
            return f"{cell} raises {type(error).__name__}: {without_link(error)}"
        if found.numel() != 1:
            return f"{cell} gives a batch of shape {tuple(found.shape)}, not one number"
        if math.isclose(float(found), case.value, rel_tol=CASE_DIGITS, abs_tol=1e-12):
            return ""
        return f"{cell} says {case.value!r} nats, and the formula gives {float(found)!r}"

    @property
    def source(self) -> str:
        """The modules that declare it."""
        return ", ".join(dict.fromkeys(self.declared_in)) or home_of(self.formula.__module__)


class PairTable(Result, tuple[Pair, ...]):
    """The registered pairs; prints as a table."""

    __slots__ = ()

    def text(self, width: int | None = WIDTH) -> str:
        """The table, with lines of at most `width` characters, or as long as they are for None."""
        return self._table().text(width)

    def _table(self) -> Table:
        rows = [(pair.name, pair.method, pair.finite, pair.reference) for pair in self]
        reasons = [f"  {pair.name}: {pair.replaces}" for pair in self if pair.replaces]
        if reasons:
            reasons.insert(0, "Formulas of torch's or Pyro's that these replace, and why:")
        return Table(("p || q", "method", "finite", "reference"), rows, notes=reasons)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary for each pair: p, q, method, condition, reference, what it replaces."""
        names = ("method", "finite", "reference", "replaces")
        return [
            {"p": pair.p.__name__, "q": pair.q.__name__}
            | {name: getattr(pair, name) for name in names}
            for pair in self
        ]
