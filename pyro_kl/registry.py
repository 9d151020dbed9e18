"""Declarations: what a family is, what a pair is, and the only door to torch's KL registry.

A univariate family is declared once, by `declare(Family(...))`. Rules (`compose`, `enumerate`)
then derive its pairs with every family that is already there. A formula written for one pair is
declared by `@register`; it outranks a derived one. Both end in torch's registry, so that
`torch.distributions.kl_divergence` and every Pyro ELBO find them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyro.distributions  # Pyro's own registrations first: none may overwrite ours
import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    TransformedDistribution,
    register_kl,
)
from torch.distributions import kl as torch_kl

from .shapes import broadcast_batch

__all__ = [
    "COUNTS",
    "INFINITE",
    "POSITIVE",
    "REAL",
    "UNIT_INTERVAL",
    "Case",
    "Condition",
    "Family",
    "Moment",
    "Pair",
    "PairTable",
    "Support",
    "above",
    "declare",
    "pair_of",
    "register",
    "registered",
]

Formula = Callable[[Any, Any], Tensor]
#: A formula on the parameters of p and of q, by torch's names, in float64.
Kernel = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
F = TypeVar("F", bound=Formula)


# --- what a family declares ---------------------------------------------------------------------


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

    def holds(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return parameters[self.parameter] > self.bound

    def made_safe(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
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
    read: Callable[[Any], Mapping[str, Tensor]] | None = None
    special_case_of: tuple[type[Distribution], Callable[..., dict[str, Tensor]]] | None = None
    replaces: Mapping[type[Distribution], str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.distribution.__name__

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


# --- what a pair is -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A worked example: constructor arguments of p and q, and the KL in nats at 30 digits."""

    p: Mapping[str, Any]
    q: Mapping[str, Any]
    value: float
    source: str = "50 digits, from the densities"


@dataclass(frozen=True)
class Pair:
    """A registered pair, with all that a user may want to know of it."""

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

    @property
    def name(self) -> str:
        return f"{self.p.__name__} || {self.q.__name__}"

    @property
    def owner(self) -> str:
        """The function that is the formula."""
        return f"{self.formula.__module__}.{self.formula.__qualname__}"

    @property
    def source(self) -> str:
        """The files that a reader would open."""
        return ", ".join(dict.fromkeys(self.declared_in)) or self.formula.__module__


class PairTable(tuple[Pair, ...]):
    """The registered pairs; prints as a table."""

    __slots__ = ()

    def __str__(self) -> str:
        rows = [("p || q", "method", "finite", "reference")]
        rows += [(pair.name, pair.method, pair.finite, pair.reference) for pair in self]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
            for row in rows
        ]
        return "\n".join(lines)

    __repr__ = __str__


_UPSTREAM = dict(torch_kl._KL_REGISTRY)
_FAMILIES: dict[type[Distribution], Family] = {}
_PAIRS: dict[tuple[type[Distribution], type[Distribution]], Pair] = {}
_KERNELS: dict[tuple[type[Distribution], type[Distribution]], Kernel] = {}
#: Rules that derive a pair of two families, or return None; the first that answers wins.
_RULES: list[Callable[[Family, Family], Pair | None]] = []


def registered() -> PairTable:
    """Every pair that pyro_kl has registered, in the order of their names.

    Returns:
        A tuple of `Pair`: p, q, method, finiteness condition, reference; prints as a table.

    Example:
        >>> pair = next(r for r in pyro_kl.registered() if r.name == "Gamma || InverseGamma")
        >>> pair.method, pair.finite
        ('closed form', 'p.concentration > 1')
    """
    return PairTable(sorted(_PAIRS.values(), key=lambda pair: pair.name))


def families() -> tuple[Family, ...]:
    """Every declared family."""
    return tuple(_FAMILIES.values())


def family_of(cls: type[Distribution]) -> Family | None:
    """The family a class belongs to, through its nearest declared base class."""
    return next((_FAMILIES[base] for base in cls.__mro__ if base in _FAMILIES), None)


def pair_of(p: type[Distribution], q: type[Distribution]) -> Pair | None:
    """Our pair that torch's dispatch would call for two classes; None if it is not ours."""
    try:
        function = torch_kl._dispatch_kl(p, q)
    except NotImplementedError:
        return None
    return getattr(function, "pyro_kl_pair", None)


def upstream_owner(p: type[Distribution], q: type[Distribution]) -> str | None:
    """Who had registered exactly this pair before pyro_kl was imported."""
    function = _UPSTREAM.get((p, q))
    return None if function is None else f"{function.__module__}.{function.__qualname__}"


def upstream_formula(p: type[Distribution], q: type[Distribution]) -> Formula:
    """What torch or Pyro had registered for exactly this pair."""
    return _UPSTREAM[p, q]


def no_formula(p: Distribution, q: Distribution) -> NotImplementedError:
    """The error for a pair that nobody has a formula for, with the next step."""
    pair = f"{describe(p)} || {describe(q)}"
    return NotImplementedError(
        f"No formula for KL({pair}). Estimate it with pyro_kl.monte_carlo(p, q) or "
        "pyro_kl.kl(p, q, num_samples=...), or declare one with @pyro_kl.register; "
        "pyro_kl.registered() lists what there is."
    )


def describe(law: Distribution) -> str:
    """A law's type, and what it wraps."""
    base = getattr(law, "base_dist", None)
    wraps = isinstance(law, Independent) or type(law) is TransformedDistribution
    return type(law).__name__ + (f"({describe(base)})" if wraps and base is not None else "")


@register_kl(Distribution, Distribution)
def _kl_missing(p: Distribution, q: Distribution) -> Tensor:
    """Where torch's dispatch ends if no pair fits: its own message has no next step."""
    raise no_formula(p, q)


# --- declaring ----------------------------------------------------------------------------------


def derivation_rule(
    rule: Callable[[Family, Family], Pair | None],
) -> Callable[[Family, Family], Pair | None]:
    """Add a rule that derives pairs of declared families."""
    _RULES.append(rule)
    return rule


def declare(family: Family) -> Family:
    """Declare a family: all pairs that follow from it and the families known are registered.

    Re-declaration of the same class by the same module (a notebook cell run again) replaces.

    Args:
        family: what a KL needs to know about it.

    Returns:
        The family, to declare formulas of single pairs with `@formula`.

    Raises:
        TypeError: `family.distribution` is not a distribution class.
        ValueError: no example, or another module has already declared the class.
    """
    _check_class(family.distribution, "a family")
    if not family.examples:
        raise ValueError(
            f"{family.name}: declare at least one example (constructor arguments): the checks, "
            "the documentation and the reference values start from it."
        )
    known = _FAMILIES.get(family.distribution)
    if known is not None and known.home != family.home:
        raise ValueError(
            f"{family.name} is already declared in {known.home}; declare a "
            "subclass, or a single pair with @pyro_kl.register."
        )
    _FAMILIES[family.distribution] = family
    for other in list(_FAMILIES.values()):
        _derive(family, other)
        if other is not family:
            _derive(other, family)
    return family


def _derive(p: Family, q: Family) -> None:
    key = (p.distribution, q.distribution)
    if key in _PAIRS and not _PAIRS[key].derived:
        return
    for rule in _RULES:
        pair = rule(p, q)
        if pair is not None:
            if upstream_owner(*key) is None or pair.replaces is not None:
                _install(pair)
            return


def register(
    p: type[Distribution],
    q: type[Distribution],
    *,
    cases: Sequence[Case],
    finite: str = "always",
    reference: str,
    method: str = "closed form",
    replaces: str | None = None,
    make_p: Callable[..., Distribution] | None = None,
    make_q: Callable[..., Distribution] | None = None,
) -> Callable[[F], F]:
    """Register a formula for KL(p || q), as a decorator of `formula(p, q) -> Tensor`.

    The formula gets two distributions and returns nats of the broadcast batch shape; +inf where
    the KL is infinite, never nan.

    Args:
        p: class of the first argument.
        q: class of the second argument.
        cases: at least one worked example; the test-suite checks each.
        finite: when the KL is finite: "always", or a condition in torch's parameter names.
        reference: author, year, equation: where the result can be verified.
        method: "closed form", "exact sum", "rule" (calls `kl_divergence` again).
        replaces: why torch's or Pyro's formula for exactly this pair is replaced.
        make_p: how a case's `p` becomes a distribution; by default the class itself.
        make_q: the same for `q`.

    Returns:
        A decorator that returns the formula unchanged.

    Raises:
        TypeError: `p` or `q` is not a distribution class.
        ValueError: no case; the pair has an owner already.

    Example:
        >>> class MyNormal(torch.distributions.Normal): pass
        >>> @pyro_kl.register(
        ...     MyNormal, MyNormal, reference="the same",
        ...     cases=[pyro_kl.Case(dict(loc=0., scale=1.), dict(loc=1., scale=1.), 0.5)])
        ... def kl_mine(p, q):
        ...     return (p.loc - q.loc) ** 2 / 2
        >>> torch.distributions.kl_divergence(MyNormal(0., 1.), MyNormal(1., 1.))
        tensor(0.5000)
    """
    _check_class(p, "p")
    _check_class(q, "q")
    if not cases:
        raise ValueError(
            f"KL({p.__name__} || {q.__name__}): give at least one worked case, "
            "`cases=[Case(dict(...), dict(...), value)]`, from the densities and not from the "
            "formula itself."
        )

    def decorate(formula: F) -> F:
        pair = Pair(
            p, q, method, finite, reference, formula, tuple(cases), replaces,
            make_p=make_p, make_q=make_q,
        )  # fmt: skip
        _check_free(pair)
        _install(pair)
        return formula

    return decorate


def _check_free(pair: Pair) -> None:
    """Refuse a pair that has an owner, unless it is the same code again or the reason is given."""
    known = _PAIRS.get((pair.p, pair.q))
    if known is not None and not known.derived:
        if known.owner != pair.owner:
            raise ValueError(f"KL({pair.name}) is already registered to {known.owner}.")
        return
    owner = upstream_owner(pair.p, pair.q)
    if owner is not None and pair.replaces is None:
        raise ValueError(
            f"KL({pair.name}) is already registered to {owner}. To override it, say why: "
            '`replaces="..."`; the reason goes to the table of pairs.'
        )


def _install(pair: Pair) -> None:
    _PAIRS[pair.p, pair.q] = pair

    def call(p: Distribution, q: Distribution) -> Tensor:
        return pair.formula(p, q)

    call.__name__ = call.__qualname__ = getattr(pair.formula, "__name__", "kl")
    call.__doc__ = pair.formula.__doc__
    call.pyro_kl_pair = pair  # type: ignore[attr-defined]
    register_kl(pair.p, pair.q)(call)


def _check_class(cls: object, role: str) -> None:
    known = (Distribution, pyro.distributions.Distribution)
    if not (isinstance(cls, type) and issubclass(cls, known)):
        raise TypeError(f"{role} must be a distribution class of torch or Pyro: {cls!r}")


# --- formulas on parameters ---------------------------------------------------------------------


def lift(kernel: Kernel, p_family: Family, q_family: Family) -> Formula:
    """From a formula on parameters to one on distributions.

    The parameters are carried in float64 where the device can, and the answer is rounded once,
    to the dtype that torch's promotion gives: float32 has no digits left for a KL between
    neighbours, and these formulas are cheap.
    """

    def formula(p: Distribution, q: Distribution) -> Tensor:
        shape = broadcast_batch(p, q)
        p_values, q_values = p_family.of(p), q_family.of(q)
        dtype = _promoted([*p_values.values(), *q_values.values()])
        value = kernel(_in_float64(p_values), _in_float64(q_values))
        return value.to(dtype).expand(shape)

    formula.__module__ = getattr(kernel, "__module__", formula.__module__)
    formula.__name__ = formula.__qualname__ = getattr(kernel, "__name__", "kl")
    formula.__doc__ = kernel.__doc__
    return formula


def _promoted(tensors: Sequence[Tensor]) -> torch.dtype:
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _in_float64(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: value if value.device.type == "mps" else value.to(torch.float64)
        for name, value in values.items()
    }


def formula(
    p: Family,
    q: Family,
    *,
    cases: Sequence[Case],
    reference: str,
    finite: str = "always",
    method: str = "closed form",
    replaces: str | None = None,
) -> Callable[[Kernel], Kernel]:
    """Register a formula for one pair of declared families, on their parameters.

    Like `register`, for a function of two mappings from torch's parameter names to float64
    tensors; reading, promotion, broadcasting and rounding are done around it.
    """

    def decorate(kernel: Kernel) -> Kernel:
        register(
            p.distribution, q.distribution,
            cases=cases, finite=finite, reference=reference, method=method, replaces=replaces,
        )(lift(kernel, p, q))  # fmt: skip
        _KERNELS[p.distribution, q.distribution] = kernel
        return kernel

    return decorate


def kernel_of(p: type[Distribution], q: type[Distribution]) -> Kernel | None:
    """The formula on parameters that `@formula` declared for a pair."""
    return _KERNELS.get((p, q))
