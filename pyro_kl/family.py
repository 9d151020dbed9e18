"""What a univariate family declares: all that a KL needs to know about it, for both roles."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.distributions import Distribution

#: A law's parameters by torch's names.
Parameters: TypeAlias = Mapping[str, Tensor]


@dataclass(frozen=True)
class Support:
    """Where a family has mass, up to sets of measure zero."""

    name: str
    discrete: bool
    low: float
    high: float

    def __le__(self, other: Support) -> bool:
        """Whether this support lies inside the other."""
        same_measure = self.discrete == other.discrete
        return same_measure and other.low <= self.low and self.high <= other.high


REAL = Support("real line", discrete=False, low=-math.inf, high=math.inf)
POSITIVE = Support("positive half-line", discrete=False, low=0.0, high=math.inf)
UNIT_INTERVAL = Support("unit interval", discrete=False, low=0.0, high=1.0)
COUNTS = Support("counts from 0", discrete=True, low=0.0, high=math.inf)


@dataclass(frozen=True)
class Condition:
    """A parameter must exceed a bound: the mask, and parameters that satisfy it."""

    parameter: str
    bound: float

    def holds(self, parameters: Parameters) -> Tensor:
        return parameters[self.parameter] > self.bound

    def made_safe(self, parameters: Parameters) -> dict[str, Tensor]:
        """The parameters, moved inside where the condition fails: no branch may see an inf."""
        value = parameters[self.parameter]
        return {
            **parameters,
            self.parameter: torch.where(value > self.bound, value, self.bound + 1.0),
        }


def above(**bounds: float) -> tuple[Condition, ...]:
    """The condition `above(concentration=1)`, as a moment declares it."""
    return tuple(Condition(name, bound) for name, bound in bounds.items())


@dataclass(frozen=True)
class Moment:
    """An expectation under p: a function of p's parameters, and when it is finite."""

    value: Callable[..., Tensor]
    finite: tuple[Condition, ...] = ()
    never: bool = False


#: A moment that is +inf for all parameters: a q that asks for it is infinitely far.
INFINITE = Moment(lambda **_: torch.tensor(math.inf), never=True)


@dataclass(frozen=True)
class Family:
    """A univariate family, declared once for both roles, p and q.

    All functions take the family's parameters by keyword, as float64 tensors, and return tensors
    of their broadcast shape, in nats where that applies.

    Args:
        distribution: the torch class (Pyro's classes are subclasses of it).
        parameters: the names that `read` returns.
        support: where it has mass.
        examples: constructor arguments; every check and every reference value starts from them.
        reference: where the entropy and the moments can be looked up.
        log_density: `log_density(mp, x, **parameters)`, the logarithm of the density or mass as
            the book writes it, on mpmath numbers: the tests integrate it for reference values,
            no formula uses it.
        entropy: H(p).
        moments: what a q may ask of p: `mean`, `variance`, `mean_log`, ...
        cross_entropy: -E_p log q; its positional-only arguments name the moments it asks of p.
        log_mass: for a discrete family, `log_mass(k, **parameters)` at integer points k along a
            new last dimension; -inf outside the support.
        num_atoms: for a finite support, the number of its atoms, which are 0, 1, 2, ...
        read: from a distribution to its parameters; by default its attributes of that name.
        special_case_of: the wider family and the map from these parameters to its own; whatever
            the wider family can do, this one then can.
        replaces: why a derived pair may replace torch's or Pyro's own formula, by q's class.
    """

    distribution: type[Distribution]
    parameters: tuple[str, ...]
    support: Support
    examples: Sequence[Mapping[str, Any]]
    reference: str
    log_density: Callable[..., Any]
    entropy: Callable[..., Tensor] | None = None
    moments: Mapping[str, Moment] = field(default_factory=dict)
    cross_entropy: Callable[..., Tensor] | None = None
    log_mass: Callable[..., Tensor] | None = None
    num_atoms: Callable[..., int] | None = None
    read: Callable[[Any], Parameters] | None = None
    special_case_of: tuple[type[Distribution], Callable[..., dict[str, Tensor]]] | None = None
    replaces: Mapping[type[Distribution], str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.distribution.__name__

    def make(self, example: Mapping[str, Any]) -> Distribution:
        """A member of the family, in float64."""
        build: Callable[..., Distribution] = self.distribution
        return build(
            **{name: torch.as_tensor(x, dtype=torch.float64) for name, x in example.items()}
        )

    @property
    def home(self) -> str:
        """The module that declares it."""
        return self.log_density.__module__

    @property
    def needs(self) -> tuple[str, ...] | None:
        """The moments that the cross-entropy against this family asks of p."""
        if self.cross_entropy is None:
            return None
        return tuple(
            name
            for name, parameter in inspect.signature(self.cross_entropy).parameters.items()
            if parameter.kind is parameter.POSITIONAL_ONLY
        )

    def of(self, distribution: Distribution) -> dict[str, Tensor]:
        """The parameters of a member of the family, by torch's names."""
        if self.read is not None:
            return dict(self.read(distribution))
        return {name: getattr(distribution, name) for name in self.parameters}


def probs_or_logits(law: Any) -> Parameters:
    """The one parameter that was given; torch clamps when it computes the other one."""
    if "probs" in law.__dict__ and law._param is law.__dict__["probs"]:
        return {"probs": law.probs}
    return {"logits": law.logits}
