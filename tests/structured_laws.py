"""Structured pairs, their cases, and parameters drawn around those.

Nothing here names a family or a pair: what a pair's two `StructuredFamily` say is all there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence, transform_to

import pyro_kl
from pyro_kl import Case, Pair
from pyro_kl.structured_family import StructuredFamily

F64 = torch.float64
Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Structured:
    """A registered pair that says how members of both sides are made."""

    pair: Pair

    @property
    def id(self) -> str:
        return self.pair.name.replace(" || ", "-")

    @property
    def families(self) -> tuple[StructuredFamily, StructuredFamily]:
        return self.pair.make_p, self.pair.make_q

    @property
    def batched(self) -> bool:
        return all(family.batched for family in self.families)

    @property
    def same(self) -> bool:
        return self.families[0] is self.families[1]

    @property
    def exact(self) -> bool:
        """Whether rounding is the only error."""
        return self.pair.method != "quadrature"

    def finite_cases(self) -> list[Case]:
        return [case for case in self.pair.cases if isfinite(case.value)]

    def sides(self, case: Case) -> tuple[tuple[StructuredFamily, Parameters], ...]:
        return tuple(zip(self.families, (case.p, case.q), strict=True))

    def of(self, p: Parameters, q: Parameters) -> Tensor:
        """KL of the members with these parameters, through torch's dispatch."""
        make_p, make_q = self.families
        return kl_divergence(make_p(**p), make_q(**q))


STRUCTURED = tuple(
    Structured(pair)
    for pair in pyro_kl.registered()
    if isinstance(pair.make_p, StructuredFamily) and isinstance(pair.make_q, StructuredFamily)
)


def over(duos: Iterable[Structured]) -> pytest.MarkDecorator:
    """Parametrise a test by pairs."""
    duos = list(duos)
    return pytest.mark.parametrize("duo", duos, ids=[duo.id for duo in duos])


def as_tensors(parameters: Parameters, dtype: torch.dtype = F64) -> dict[str, Tensor]:
    return {name: torch.as_tensor(x, dtype=dtype) for name, x in parameters.items()}


# --- free coordinates ---------------------------------------------------------------------------
#
# A triangular or positive definite matrix and a probability vector are not free to move entry by
# entry. torch's maps to their constraints are what moves them.


def free(family: StructuredFamily, parameters: Parameters) -> dict[str, Tensor]:
    """The real parameters in unconstrained coordinates."""
    values = as_tensors(parameters)
    return {
        name: transform_to(family.parameters[name]).inv(x)
        for name, x in values.items()
        if name in family.parameters
    }


def bound(
    family: StructuredFamily, coordinates: Mapping[str, Tensor], fixed: Parameters
) -> dict[str, Any]:
    """Back from unconstrained coordinates, with the parameters that do not move."""
    moved = {name: transform_to(family.parameters[name])(u) for name, u in coordinates.items()}
    return {name: moved[name] if name in moved else x for name, x in as_tensors(fixed).items()}


def draw(
    family: StructuredFamily, parameters: Parameters, shape: tuple[int, ...], spread: float
) -> dict[str, Any]:
    """Members around given ones, independent along the batch `shape`."""
    moved = {
        name: u + spread * torch.randn((*shape, *u.shape), dtype=F64)
        for name, u in free(family, parameters).items()
    }
    return bound(family, moved, parameters)


def one_of(family: StructuredFamily, parameters: Parameters, index: tuple[int, ...]) -> Parameters:
    """An element of a batch that `draw` made."""
    return {name: x[index] if name in family.parameters else x for name, x in parameters.items()}


def function_of(duo: Structured, case: Case):
    """KL as a function of free coordinates, p's then q's, and the coordinates of the case."""
    starts = [free(family, parameters) for family, parameters in duo.sides(case)]

    def function(*coordinates: Tensor) -> Tensor:
        given = iter(coordinates)
        p, q = (
            bound(family, {name: next(given) for name in start}, parameters)
            for start, (family, parameters) in zip(starts, duo.sides(case), strict=True)
        )
        return duo.of(p, q)

    return function, [u for start in starts for u in start.values()]


__all__ = [
    "F64",
    "STRUCTURED",
    "Structured",
    "as_tensors",
    "bound",
    "draw",
    "free",
    "function_of",
    "one_of",
    "over",
]
