"""The declaration of a univariate family: what a KL needs of it as p and as q."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..messages import see
from ..numerics.concrete import holds_everywhere
from ..numerics.dtypes import Parameters
from ..numerics.special.counts import largest
from .line import Line

if TYPE_CHECKING:
    from .integrate_counts import Count

#: An end of a support: a number, or a function of the family's parameters.
End: TypeAlias = "float | Callable[..., Tensor]"


@dataclass(frozen=True)
class Support:
    """Where a family has mass, up to sets of measure zero.

    Args:
        name: in words.
        discrete: whether it has a mass function on integers rather than a density.
        low: the lower end; a function of the family's parameters if it depends on them.
        high: the upper end; a number or a function, like `low`.
        above: if `low` is a function, a bound that it always exceeds.
        below: if `high` is a function, a bound that it never reaches.
        may_reach_infinity: whether `high`, if it is a function, may be inf.
        period: the length of a turn, for a distribution on a circle. Its density is defined at all
            real numbers; the KL is undefined for a p whose support exceeds one period.
    """

    name: str
    discrete: bool
    low: End
    high: End
    above: float = -math.inf
    below: float = math.inf
    may_reach_infinity: bool = False
    period: float | None = None

    def may_outgrow(self, other: Support) -> bool:
        """Whether `other` is a circle and some members of this family go round more than once."""
        if other.period is None or self.discrete or self.period is not None:
            return False
        if callable(self.low) or callable(self.high):
            return True
        return self.high - self.low > other.period

    def never_inside(self, other: Support) -> bool:
        """Whether some mass is outside `other` for all parameters."""
        if self.discrete != other.discrete:
            return True
        if other.period is not None:
            return False
        low, high = other.low, other.high
        too_low = not callable(self.low) and (
            self.low <= other.above if callable(low) else self.low < low
        )
        too_high = not callable(self.high) and (
            self.high >= other.below and not other.may_reach_infinity
            if callable(high)
            else self.high > high
        )
        return too_low or too_high

    def inside(self, other: Support) -> tuple[bool, bool]:
        """Whether the lower and the upper end must be compared for given parameters."""
        if other.period is not None:
            return False, False
        low = callable(other.low) or (callable(self.low) and self.above < other.low)
        high = callable(other.high) or (callable(self.high) and self.below > other.high)
        return low, high


def end_at(end: End, parameters: Parameters) -> Tensor | float:
    """An end of a support for given parameters."""
    return end(**parameters) if callable(end) else end


REAL = Support("real line", discrete=False, low=-math.inf, high=math.inf)
POSITIVE = Support("positive half-line", discrete=False, low=0.0, high=math.inf)
UNIT_INTERVAL = Support("unit interval", discrete=False, low=0.0, high=1.0)
COUNTS = Support("counts from 0", discrete=True, low=0.0, high=math.inf)


@dataclass(frozen=True)
class Condition:
    """A parameter must be above (or below) a bound for a moment to be finite."""

    parameter: str
    bound: float
    is_upper: bool = False

    def __str__(self) -> str:
        return f"{self.parameter} {'<' if self.is_upper else '>'} {self.bound:g}"

    def fails(self, parameters: Parameters) -> Tensor:
        value = parameters[self.parameter]
        return value >= self.bound if self.is_upper else value <= self.bound

    def stricter(self, other: Condition) -> Condition:
        """Of two conditions on one parameter, the one that implies the other."""
        keep = self.bound < other.bound if self.is_upper else self.bound > other.bound
        return self if keep else other

    def made_safe(self, parameters: Parameters) -> dict[str, Tensor]:
        """The parameters, moved inside where the condition fails, so that no branch meets inf."""
        value = parameters[self.parameter]
        inside = self.bound - 1.0 if self.is_upper else self.bound + 1.0
        return {**parameters, self.parameter: torch.where(self.fails(parameters), inside, value)}


def above(**bounds: float) -> tuple[Condition, ...]:
    """The condition `above(concentration=1)`, as a moment declares it."""
    return tuple(Condition(name, bound) for name, bound in bounds.items())


def below(**bounds: float) -> tuple[Condition, ...]:
    """The condition `below(concentration=1)`, as a moment declares it."""
    return tuple(Condition(name, bound, is_upper=True) for name, bound in bounds.items())


@dataclass(frozen=True)
class Moment:
    """An expectation under p, and when it is finite.

    Args:
        value: a function of p's parameters, by keyword. A moment with an argument, such as E x^k,
            takes it first and positional-only; q's cross-entropy then gets a function of it.
        finite: conditions on p's parameters.
        argument_below: a function of p's parameters; the moment is finite for arguments below it.
        below: `argument_below` in words.
        never: whether it is +inf for all parameters.
    """

    value: Callable[..., Tensor]
    finite: tuple[Condition, ...] = ()
    argument_below: Callable[..., Tensor] | None = None
    below: str = ""
    never: bool = False

    @cached_property
    def takes_argument(self) -> bool:
        """Whether `value` has an argument besides p's parameters."""
        kinds = (p.kind for p in inspect.signature(self.value).parameters.values())
        return any(kind is inspect.Parameter.POSITIONAL_ONLY for kind in kinds)


def _infinite(**_: Tensor) -> Tensor:
    return torch.tensor(math.inf)


#: A moment that is +inf for all parameters: so is the KL to a q whose cross-entropy needs it.
INFINITE = Moment(_infinite, never=True)


@dataclass(frozen=True)
class Family:
    """A univariate family, declared once for both roles, p and q.

    All functions take the family's parameters by keyword, as float64 tensors, and return tensors
    of their broadcast shape, in nats where that applies.

    Args:
        distribution: the torch class (Pyro's classes are subclasses of it).
        parameters: the names that `read` returns.
        support: where it has mass.
        examples: constructor arguments, as mappings or as rows in the order of `parameters`:
            checks and reference values are made at these members.
        reference: where the entropy and the moments can be looked up.
        density: the density at x, or the mass at k, as an expression of Python with the functions
            of SymPy and torch's names of the parameters; z is short for (x - loc) / scale, and
            odds for probs / (1 - probs). The documentation prints it; no formula uses it.
        log_density: `log_density(mp, x, **parameters)`, the logarithm of the density or mass as
            a book writes it, on mpmath numbers. Tests of the family integrate it for reference
            values; no formula uses it.
        kinks: the points inside the support where the log density is not smooth, as a function of
            the constructor's arguments; integrals are split there.
        entropy: H(p).
        moments: expectations under p that cross-entropies need: `mean`, `variance`, ...
        cross_entropy: -E_p log q; its positional-only arguments name the moments of p it needs.
        arguments: in words, the argument that the cross-entropy gives to a moment that takes one.
        log_mass: for a discrete family, `log_mass(k, **parameters)` at integer points k along a
            new last dimension; -inf outside the support.
        num_atoms: for a finite support, the number of its atoms, which are 0, 1, 2, ...
        tail: for an infinite discrete support, `tail(n, **parameters)`, the mass of n and beyond.
            Without it, an exact sum over a finite p takes 1 minus the masses below.
        read: a function from a distribution to its parameters; by default, the attributes of
            those names.
        special_case_of: a wider family and the map from these parameters to its parameters. Two
            special cases of one family get the KL of that family.
        safe: parameters at which no formula overflows; they replace those whose KL is infinite.
            The first example by default.
        line: for a continuous family, its density and its mass on the line. The KL to another such
            family is an integral, if there is no closed form.
        geometric_mixture: of an exponential family, `geometric_mixture(p, q, alpha)` of two
            mappings of parameters: those of the member proportional to p^alpha q^(1 - alpha).
            Where there is none, they are outside of the constraints of the class. Renyi's
            divergence follows (`registry/renyi.py`).
        renyi: `renyi(p, q, alpha)`, Renyi's divergence of the same two mappings for alpha other
            than 1, where the family has a formula of its own.
        count: for a Poisson, a NegativeBinomial or a zero-inflated one, its parameters as a
            `Count`.
        replaces: why a derived pair may replace torch's or Pyro's own formula, by q's class.
        home: the module that declares it, which `declare` fills in.
    """

    distribution: type[Distribution]
    parameters: tuple[str, ...]
    support: Support
    examples: Sequence[Any]
    reference: str
    density: str = ""
    log_density: Callable[..., Any] | None = None
    kinks: Callable[..., tuple[Any, ...]] | None = None
    entropy: Callable[..., Tensor] | None = None
    moments: Mapping[str, Moment] = field(default_factory=dict)
    cross_entropy: Callable[..., Tensor] | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    log_mass: Callable[..., Tensor] | None = None
    num_atoms: Callable[..., int] | None = None
    tail: Callable[..., Tensor] | None = None
    read: Callable[[Any], Parameters] | None = None
    special_case_of: tuple[type[Distribution], Callable[..., dict[str, Tensor]]] | None = None
    safe: Mapping[str, float] | None = None
    line: Line | None = None
    count: Callable[..., Count] | None = None
    geometric_mixture: Callable[[Parameters, Parameters, float], Parameters] | None = None
    renyi: Callable[[Parameters, Parameters, float], Tensor] | None = None
    replaces: Mapping[type[Distribution], str] = field(default_factory=dict)
    home: str = ""

    def __post_init__(self) -> None:
        named = [
            x if isinstance(x, Mapping) else dict(zip(self.parameters, x, strict=True))
            for x in self.examples
        ]
        object.__setattr__(self, "examples", tuple(named))

    @property
    def name(self) -> str:
        return self.distribution.__name__

    def make(self, example: Mapping[str, Any]) -> Distribution:
        """A member of the family, in float64."""
        build: Callable[..., Distribution] = self.distribution
        return build(
            **{name: torch.as_tensor(x, dtype=torch.float64) for name, x in example.items()}
        )

    @cached_property
    def vectors(self) -> frozenset[str]:
        """The names of the parameters that are vectors."""
        given = (item for example in self.examples for item in example.items())
        return frozenset(name for name, x in given if isinstance(x, Sequence))

    def unless(self, mask: Tensor, parameters: Parameters) -> dict[str, Tensor]:
        """The parameters, replaced by safe ones where the mask holds.

        A mask says where a KL is infinite, not where it is finite: a comparison with nan is False,
        so that a nan parameter stays and makes the KL nan.
        """
        safe = self.examples[0] if self.safe is None else self.safe
        return {name: torch.where(mask, safe[name], x) for name, x in parameters.items()}

    @cached_property
    def needs(self) -> tuple[str, ...] | None:
        """The names of the moments of p that the cross-entropy to this family needs."""
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


def location_scale(
    distribution: type[Distribution], *, far: tuple[float, float] = (-9.0, 5.0), **declaration: Any
) -> Family:
    """A `Family` on the real line with a loc and a scale.

    Args:
        distribution: the torch class.
        far: loc and scale of its third example.
        declaration: the other arguments of `Family`.
    """
    return Family(
        distribution,
        parameters=("loc", "scale"),
        support=REAL,
        examples=((0.0, 1.0), (1.5, 0.4), far),
        **declaration,
    )


def straight(*names: str) -> Callable[[Parameters, Parameters, float], Parameters]:
    """`geometric_mixture` of a family whose parameters of these names are its natural ones."""

    def mixture(p: Parameters, q: Parameters, alpha: float) -> Parameters:
        return {name: q[name] + alpha * (p[name] - q[name]) for name in names}

    return mixture


def probs_or_logits(distribution: Any) -> Parameters:
    """`probs` or `logits`, whichever was passed: torch clamps when it converts one to another."""
    if "probs" in distribution.__dict__ and distribution._param is distribution.__dict__["probs"]:
        return {"probs": distribution.probs}
    return {"logits": distribution.logits}


def atoms_up_to_total_count(total_count: Tensor, **_: Tensor) -> int:
    """`num_atoms` of a family on 0, ..., total_count."""
    return largest(total_count) + 1


def counts_of(distribution: Any) -> Tensor:
    """The total_count of a distribution whose class may allow a negative one.

    Raises:
        ValueError: some total_count is negative. It is not checked where values cannot be read.
    """
    if holds_everywhere(distribution.total_count, lambda n: (n < 0).any()):
        raise ValueError(
            f"{type(distribution).__name__}: total_count is negative in some elements; "
            "there it has no mass anywhere, and no KL is defined. Leave these elements out."
            + see("not-a-distribution")
        )
    return distribution.total_count


def read_gate(p: Any) -> Parameters:
    """The gate that the user gave: Pyro adds the other form at its first use."""
    given = next(name for name in p.__dict__ if name in ("gate", "gate_logits"))
    return {given: p.__dict__[given]}


def in_rows(parameters: Parameters, vectors: frozenset[str]) -> list[Tensor]:
    """One number for each row and parameter; it is nan if the parameter is."""
    return [x.sum(-1) if name in vectors else x for name, x in parameters.items()]
