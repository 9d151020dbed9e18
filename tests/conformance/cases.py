"""Registered pairs, reference rows and random parameters: what the conformance tests run over.

Nothing here names a family or a pair. A new family joins every test by being declared.
"""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import pyro.distributions
import pytest
import torch
from pyro.distributions.constraints import ordered_vector
from torch import Tensor
from torch.distributions import Distribution, constraints, kl_divergence

import pyro_kl
from pyro_kl import Family, Pair
from pyro_kl.divergence.check_subject import unvalidated
from pyro_kl.registry.register import families

from .reference import load, quadrature_values

F64 = torch.float64
DEPENDENT = type(constraints.dependent)
without_validation = unvalidated
VALUES = {**load(), **quadrature_values.load()}
FAMILIES = {family.name: family for family in families()}


#: Before torch 2.13, torch.compile traces not all that it is asked here: the constructors of
#: Pyro's HMMs, an `expand`, the comparison of two maps.
newer_compile = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13),
    reason="torch.compile before torch 2.13 does not trace it",
)


@dataclass(frozen=True)
class Row:
    """Parameters of p and q, the reference value, and what that may be off."""

    p: Mapping[str, Any]
    q: Mapping[str, Any]
    kl: float
    error: float = 0.0

    @property
    def finite(self) -> bool:
        return isfinite(self.kl)


@dataclass(frozen=True)
class Duo:
    """A registered pair of two declared families, with its reference rows."""

    pair: Pair
    p: Family
    q: Family
    rows: tuple[Row, ...]

    @property
    def id(self) -> str:
        return f"{self.p.name}-{self.q.name}"

    def digits(self, exact: float) -> float:
        """A tolerance; what is not exact is as good as it was asked to be."""
        return max(exact, 1e-6) if self.pair.method == "quadrature" else exact

    def finite_rows(self) -> list[Row]:
        return [row for row in self.rows if row.finite]

    def measurable_rows(self) -> list[Row]:
        """Those of distributions that differ by more than the rounding of a parameter."""
        return [row for row in self.finite_rows() if row.kl > 1e-30]


def _duo(pair: Pair) -> Duo | None:
    p, q = FAMILIES.get(pair.p.__name__), FAMILIES.get(pair.q.__name__)
    if p is None or q is None or (p.distribution, q.distribution) != (pair.p, pair.q):
        return None
    stored = VALUES.get(pair.name, [])
    rows = tuple(
        Row(row["p"], row["q"], float(row["kl"]), row.get("error", 0.0)) for row in stored
    )
    return Duo(pair, p, q, rows)


def _expands(family: Family) -> bool:
    """Whether the class has an `expand` of its own: not all of Pyro's do."""
    try:
        family.make(family.examples[0]).expand((2,))
    except NotImplementedError:
        return False
    return True


PAIRS = tuple(pyro_kl.registered())
DUOS = tuple(duo for duo in map(_duo, PAIRS) if duo is not None)
#: By a rule for all pairs: their values are checked one by one, the rest on a sample.
QUADRATURE = tuple(duo for duo in DUOS if duo.pair.method == "quadrature")
SAMPLE = tuple(
    duo
    for duo in QUADRATURE
    if zlib.crc32(duo.id.encode()) % 16 == 0
    and len(duo.finite_rows()) >= 4
    and _expands(duo.p)
    and _expands(duo.q)
)
#: Those that are finite for some parameters, and the sample.
FINITE = (
    *(duo for duo in DUOS if duo.pair.method not in ("infinite", "quadrature")),
    *SAMPLE,
)
#: The others: one light test each.
INFINITE = tuple(duo for duo in DUOS if duo.pair.method == "infinite")
SAME = tuple(duo for duo in FINITE if duo.p is duo.q)


def over(duos: Iterable[Duo]) -> pytest.MarkDecorator:
    """Parametrise a test by pairs, with ids like `Gamma-LogNormal`."""
    duos = list(duos)
    return pytest.mark.parametrize("duo", duos, ids=[duo.id for duo in duos])


def over_few(duos: Iterable[Any]) -> pytest.MarkDecorator:
    """The same for what is slow: every class in each of its roles in some pair.

    The pairs beyond these are left to `make sweep`.
    """
    duos = list(duos)
    chosen, seen = set(), set()
    for new in (2, 1):  # first those that bring two roles
        for duo in duos:
            pair = duo.pair
            roles = {("p", pair.p, pair.method), ("q", pair.q, pair.method)}
            if len(roles - seen) >= new:
                chosen.add(duo.id)
                seen |= roles
    cells = [
        pytest.param(duo, marks=() if duo.id in chosen else pytest.mark.sweep) for duo in duos
    ]
    return pytest.mark.parametrize("duo", cells, ids=[duo.id for duo in duos])


# --- building -----------------------------------------------------------------------------------


def tensors(parameters: Mapping[str, Any], dtype: torch.dtype = F64) -> dict[str, Tensor]:
    """Constructor arguments as tensors."""
    return {name: torch.as_tensor(x, dtype=dtype) for name, x in parameters.items()}


def make(family: Family, parameters: Mapping[str, Any], dtype: torch.dtype = F64) -> Distribution:
    """A member of the family, of torch's class."""
    return family.distribution(**tensors(parameters, dtype))


def make_pyro(family: Family, parameters: Mapping[str, Any]) -> Distribution:
    """The same of Pyro's class."""
    return getattr(pyro.distributions, family.name)(**tensors(parameters))


def kl_of(duo: Duo, p: Mapping[str, Any], q: Mapping[str, Any]) -> Tensor:
    """KL of the members with these parameters, through torch's dispatch."""
    return kl_divergence(make(duo.p, p), make(duo.q, q))


def function_of(duo: Duo, p_names: Iterable[str], q_names: Iterable[str]):
    """KL as a function of p's tensors, then q's.

    `validate_args=False` is not passed: there are constructors that, as soon as it is not None,
    branch on data. What traces it runs under `without_validation`.
    """
    p_names, q_names = tuple(p_names), tuple(q_names)

    def function(*values: Tensor) -> Tensor:
        a = dict(zip(p_names, values[: len(p_names)], strict=True))
        b = dict(zip(q_names, values[len(p_names) :], strict=True))
        return kl_divergence(duo.p.distribution(**a), duo.q.distribution(**b))

    return function


# --- what a parameter may be --------------------------------------------------------------------


def constraints_of(family: Family) -> Mapping[str, Any]:
    """Of the first example: in some classes they depend on the parameters.

    A parameter that a class says nothing of, such as a temperature, is positive.
    """
    given = family.make(family.examples[0]).arg_constraints
    return {name: constraints.positive for name in family.examples[0]} | given


def counts_of(family: Family) -> set[str]:
    """The parameters that are integers: nothing is differentiated by them."""
    given = constraints_of(family).items()
    # the flag of a dependent constraint may need the parameters: those are no counts
    return {x for x, c in given if not isinstance(c, DEPENDENT) and c.is_discrete}


def reads_a_count(duo: Duo) -> bool:
    """Whether the number of atoms depends on the values of parameters."""
    return bool(counts_of(duo.p) or counts_of(duo.q))


def is_ordered(duo: Duo) -> bool:
    """Whether a parameter is an ordered vector."""
    given = (*constraints_of(duo.p).values(), *constraints_of(duo.q).values())
    return any(constraint is ordered_vector for constraint in given)


def bounds_of(finite: str) -> list[tuple[str, float, bool]]:
    """`p.df > 2 and p.b < 1` as [("df", 2.0, False), ("b", 1.0, True)], words apart."""
    number = r"p\.(\w+) ([<>]) (-?[0-9.]+(?:e-?[0-9]+)?)"
    found = (re.fullmatch(number, clause.strip()) for clause in re.split(" and |, ", finite))
    return [(m[1], float(m[3]), m[2] == "<") for m in found if m]


# --- random parameters --------------------------------------------------------------------------


def draw(family: Family, n: int, decades: float, which: int = 0) -> dict[str, Tensor]:
    """n random members, positive parameters log-uniform over 10^-decades .. 10^decades.

    The constraints of torch's class say where each parameter lives; the keys and the sizes of
    vectors are those of the family's example number `which`. What the class itself refuses, as
    an interval that ends before it begins, is drawn again.
    """
    example, given = family.examples[which], constraints_of(family)
    missing = torch.arange(n)
    drawn: dict[str, Tensor] = {}
    for _ in range(200):
        new = {x: _draw_one(given[x], v, len(missing), decades) for x, v in example.items()}
        for name, x in new.items():
            drawn[name] = drawn[name].index_put((missing,), x) if name in drawn else x
        if accepted(family, drawn):
            return drawn
        refused = [i for i in missing.tolist() if not accepted(family, row_of(drawn, i))]
        missing = torch.tensor(refused, dtype=torch.long)
    raise AssertionError(f"no valid parameters of {family.name}")


def accepted(family: Family, parameters: Mapping[str, Tensor]) -> bool:
    """Whether the class takes these parameters."""
    try:
        family.distribution(**parameters, validate_args=True)
    except ValueError:
        return False
    return True


def _draw_one(constraint: Any, value: Any, n: int, decades: float) -> Tensor:
    spread = 10 ** ((2 * torch.rand(n, dtype=F64) - 1) * decades)
    if constraint is constraints.simplex:
        weights = torch.rand(n, len(value), dtype=F64) ** decades
        return weights / weights.sum(-1, keepdim=True)
    if constraint is ordered_vector:
        return (torch.randn(n, len(value), dtype=F64) * decades).sort(-1).values
    if isinstance(constraint, DEPENDENT) or constraint is constraints.real:
        return torch.randn(n, dtype=F64) * spread
    if constraint is constraints.real_vector or constraint.event_dim == 1:
        return torch.randn(n, len(value), dtype=F64) * decades
    low, high = (getattr(constraint, f"{end}_bound", None) for end in ("lower", "upper"))
    if constraint.is_discrete and low is not None:
        return torch.randint(int(low) + 1, int(low) + 9, (n,)).to(F64)
    if low is not None and high is not None:
        return low + (high - low) * torch.sigmoid(torch.randn(n, dtype=F64) * decades)
    if high is not None:
        return high - spread
    if low is None:
        raise NotImplementedError(f"no way to draw a parameter from {constraint}: add it here")
    return low + spread


def row_of(parameters: Mapping[str, Tensor], i: int) -> dict[str, Tensor]:
    """Element i of a batch of parameters."""
    return {name: value[i] for name, value in parameters.items()}


def is_told_exact(duo: Duo, p: Mapping[str, Tensor], q: Mapping[str, Tensor]) -> Tensor:
    """Where an integral says that it has reached its tolerance: its derivatives rest on that."""
    if duo.pair.method != "quadrature":
        return torch.tensor(True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not
        told = pyro_kl.kl(make(duo.p, p), make(duo.q, q))
    if told.error is None:
        return torch.tensor(True)
    return told.error <= 1e-6 * told.value.abs() + 1e-13


def draw_finite(
    duo: Duo, n: int, decades: float
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """n random pairs with a finite KL, and it; shaped like examples that can have one."""
    shapes = [(i, j) for j in range(len(duo.q.examples)) for i in range(len(duo.p.examples))]
    for attempt in range(min(200, 5 * len(shapes))):
        i, j = shapes[attempt % len(shapes)]
        # wider and wider: a condition such as df > 4 is not met near 1
        spread = decades * (1 + attempt // len(shapes))
        p, q = draw(duo.p, 40 * n, spread, which=i), draw(duo.q, 40 * n, spread, which=j)
        try:
            kl = kl_of(duo, p, q)
        except ValueError:  # vectors of different sizes
            continue
        chosen = torch.nonzero(kl.isfinite() & is_told_exact(duo, p, q)).flatten()[:n]
        if len(chosen) == n:
            a, b = ({name: x[chosen] for name, x in values.items()} for values in (p, q))
            return a, b, kl[chosen]
    raise AssertionError("too few random parameters with a finite KL")


def relative_error(value: Tensor | float, truth: float) -> float:
    """|value - truth| / |truth|; 0 for two infinities of one sign and for two zeros."""
    number = float(value)
    if number == truth:
        return 0.0
    return abs(number - truth) / abs(truth) if truth else inf


# --- gradients ----------------------------------------------------------------------------------

#: Parameters of the random tests: positive ones from 10^-2 to 10^2.
DECADES = 2.0
#: Gradients are compared with finite differences, which have their own digits.
NEAR_ONE = 0.4


def interior(duo, n=2, decades=NEAR_ONE):
    """Parameters away from all boundaries, with a finite KL, one list for p and one for q."""
    p, q, _ = draw_finite(duo, n, decades)
    return p, q


def leaves(duo, p, q):
    """Independent tensors, p's then q's, that ask for gradients unless they are counts."""
    sides = ((counts_of(duo.p), p), (counts_of(duo.q), q))
    return [
        x.detach().clone().requires_grad_(name not in counts)
        for counts, group in sides
        for name, x in group.items()
    ]


def gradients_of(value, inputs):
    """By every input, zeros for those that do not ask for one."""
    asked = [x for x in inputs if x.requires_grad]
    found = iter(torch.autograd.grad(value, asked, allow_unused=True, materialize_grads=True))
    return [next(found) if x.requires_grad else torch.zeros_like(x) for x in inputs]
