"""The subject of `check`: a pair, and members of both sides around its examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, kl_divergence

from ..messages import see
from ..numerics.quadrature.integrate import tolerance
from ..registry.pair import Pair
from ..registry.provenance import recording, total_error
from ..registry.register import family_of, pair_of
from ..registry.structured_family import StructuredFamily

F64 = torch.float64
Parameters = Mapping[str, Any]
#: How far parameters are drawn from an example, in unconstrained coordinates.
_SPREAD = 0.5
_DRAWS = 4
_DEPENDENT = type(constraints.dependent)


class Wrong(Exception):
    """A check failed; the message has both numbers."""


class NotTried(Exception):
    """A check does not apply or cannot be run; the message says why."""


@dataclass(frozen=True)
class Cell:
    """Parameters of p and of q."""

    p: Parameters
    q: Parameters

    def __str__(self) -> str:
        return ", ".join(f"{side} = {in_words(x)}" for side, x in (("p", self.p), ("q", self.q)))


def in_words(parameters: Parameters) -> str:
    """Parameters as they are called, tensors by their shape."""

    def number(x: Any) -> str:
        x = torch.as_tensor(x)
        return f"{x.item():.6g}" if x.numel() == 1 else f"<shape {tuple(x.shape)}>"

    return "(" + ", ".join(f"{name}={number(x)}" for name, x in parameters.items()) + ")"


def _side(make: Any, cls: type[Any], example: Parameters) -> StructuredFamily:
    """How members of one side are made, with the constraints that the class declares."""
    if isinstance(make, StructuredFamily):
        return make
    if make is not None:
        return StructuredFamily(cls, {}, make, batched=False)
    given = {name: torch.as_tensor(x, dtype=F64) for name, x in example.items()}
    declared: Mapping[str, Any] = cls(**given).arg_constraints
    real = {
        name: constraints.real if isinstance(declared[name], _DEPENDENT) else declared[name]
        for name in example
        if name in declared
    }
    return StructuredFamily(cls, {k: c for k, c in real.items() if not c.is_discrete})


class Subject:
    """One pair, with members of both sides around its worked cases or its families' examples."""

    def __init__(self, pair: Pair, p: type[Any], q: type[Any]) -> None:
        self.pair = pair
        self.name = f"{p.__name__} || {q.__name__}"
        self.examples = self._examples(p, q)
        if not self.examples:
            raise LookupError(
                f"KL({self.name}) has no worked case and not two declared families, so there are "
                "no parameters to try. Register the pair with `cases=[...]`." + see("no-such-pair")
            )
        first = self.examples[0]
        self.sides = tuple(
            _side(make, cls, example)
            for make, cls, example in ((pair.make_p, p, first.p), (pair.make_q, q, first.q))
        )

    def _examples(self, p: type[Any], q: type[Any]) -> list[Cell]:
        cells = [Cell(case.p, case.q) for case in self.pair.cases]
        mine, theirs = family_of(p), family_of(q)
        if not cells and mine is not None and theirs is not None:
            pairs = product(enumerate(mine.examples), enumerate(theirs.examples))
            ranked = sorted(pairs, key=lambda c: (c[0][0] + c[1][0], c[0][0] == c[1][0]))
            cells = [Cell(a, b) for (_, a), (_, b) in ranked[:4]]
        return cells

    @property
    def batched(self) -> bool:
        return all(side.batched for side in self.sides)

    @cached_property
    def cells(self) -> list[Cell]:
        """The examples, and others drawn around them."""
        return [*self.examples, *self.drawn]

    @cached_property
    def drawn(self) -> list[Cell]:
        """Single members around the examples."""
        return [self.draw((), (), self.examples[i % len(self.examples)]) for i in range(_DRAWS)]

    def draw(
        self, p_shape: tuple[int, ...], q_shape: tuple[int, ...], around: Cell | None = None
    ) -> Cell:
        """Random members; a batch of them where shapes are given."""
        at = self.examples[0] if around is None else around
        for _ in range(50):
            p, q = self.sides
            cell = Cell(p.drawn(at.p, p_shape, _SPREAD), q.drawn(at.q, q_shape, _SPREAD))
            try:
                self.made(cell)
            except ValueError:  # for example an interval that ends before it begins
                continue
            return cell
        raise NotTried("no valid parameters found around the examples")

    def made(self, cell: Cell, dtype: torch.dtype = F64) -> tuple[Distribution, Distribution]:
        p, q = (
            side(**{name: torch.as_tensor(x, dtype=dtype) for name, x in given.items()})
            for side, given in zip(self.sides, (cell.p, cell.q), strict=True)
        )
        return p, q

    def of(self, cell: Cell, dtype: torch.dtype = F64) -> Tensor:
        return self.divergence(*self.made(cell, dtype))

    def divergence(self, p: Distribution, q: Distribution) -> Tensor:
        """The KL as torch dispatches it; by the pair's formula where torch calls another one."""
        ours = pair_of(type(p), type(q))
        value = kl_divergence(p, q) if ours is self.pair else self.pair.formula(p, q)
        if not isinstance(value, Tensor):
            raise Wrong(f"the formula returns a {type(value).__name__}, not a tensor")
        return value

    def value(self, cell: Cell) -> tuple[float, float]:
        """One KL and its reported error."""
        with recording() as uses, tolerance(1e-8):
            value = self.of(cell)
        if value.numel() != 1:
            raise Wrong(f"shape {tuple(value.shape)} at {cell} instead of a single number")
        error = total_error(value, uses)
        return float(value), 0.0 if error is None else float(error)


#: Returns if the subject passes; raises `Wrong` or `NotTried` if not.
Check = Callable[[Subject], None]


@contextmanager
def unvalidated() -> Iterator[None]:
    """Switch the validation of parameters off: as branches on data it cannot be traced."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)
