"""Structured pairs, their cases, and parameters drawn around those.

The pairs are read from the registry. Only what a class of torch's or Pyro's cannot do is listed
here by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

import pyro_kl
from pyro_kl import Case, Pair
from pyro_kl.registry.structured_family import StructuredFamily

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


#: Classes whose `.expand` gives no member of the class, and why.
NO_EXPAND = {
    "VonMises3D": "Pyro wraps it into an ExpandedDistribution",
    "LKJ": "Pyro's expand calls the one of a class that it is not derived from",
}
#: Classes that cannot be made while a function is mapped over or traced, and why.
NOT_TRACEABLE = {
    "DirichletMultinomial": "a count is read from a tensor: it sizes a sum",
    "GaussianScaleMixture": "the constructor assigns in place",
    "GroupedNormalNormal": "Pyro's constructor branches on the group indices",
    "OneOneMatching": "Pyro's constructor takes no batch, and its log_prob enumerates",
    "OneTwoMatching": "Pyro's constructor takes no batch, and its log_prob enumerates",
    "SineBivariateVonMises": "the constructor branches on the concentrations",
    "SineSkewed": "its base's constructor branches on the concentrations",
    "SpanningTree": "Pyro's constructor branches on the number of edges",
    "Wishart": "the constructor branches on the value of df",
}


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


#: What moves a member's parameters is the families' own.
free, bound, draw = StructuredFamily.free, StructuredFamily.bound, StructuredFamily.drawn
one_of = StructuredFamily.one_of


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
