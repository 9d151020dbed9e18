"""Declared families, derived pairs and registered formulas, and their entry in torch's registry.

A univariate family is declared once, by `declare(Family(...))`. Rules (in `compose` and the files
of integrals) then derive its pairs with all declared families. A formula for one pair is declared
by `@register` and takes precedence over a derived one. Both are entered in torch's registry, where
`torch.distributions.kl_divergence` and every Pyro ELBO find them.
"""

from __future__ import annotations

import copyreg
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

import pyro.distributions  # noqa: F401  Pyro's own registrations first: none may overwrite ours
from torch import Tensor
from torch.distributions import Distribution, Independent, register_kl
from torch.distributions import kl as torch_kl

from ..messages import see
from ..numerics.autograd.fused import Kernel
from .checks import check_cases, check_class, check_examples, check_words
from .family import Family
from .lift import Partials, lift
from .pair import Case, Formula, Pair, PairTable
from .provenance import EXACTNESS, Use, home_of, mark, note, rewind, silent_since
from .reduction import by_reduction, hide_parents
from .subclasses import hides_another, keeps_density
from .warnings import without_tracer_warnings

F = TypeVar("F", bound=Formula)

_UPSTREAM = dict(torch_kl._KL_REGISTRY)
_FAMILIES: dict[type[Distribution], Family] = {}
_PAIRS: dict[tuple[type[Distribution], type[Distribution]], Pair] = {}
_KERNELS: dict[tuple[type[Distribution], type[Distribution]], Kernel] = {}
#: Rules that derive a pair of two families or return None; the first that applies is used.
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
    """The family of a class, or of its nearest declared base class.

    None for a subclass with another density than its parent's.
    """
    for base in cls.__mro__:  # a loop: torch 2.8 does not compile next() with a default
        if base in _FAMILIES:
            return _FAMILIES[base] if keeps_density(cls, base) else None
    return None


def pair_of(p: type[Distribution], q: type[Distribution]) -> Pair | None:
    """The pair that torch's dispatch calls for two classes; None if it is not pyro_kl's."""
    try:
        function = torch_kl._dispatch_kl(p, q)
    except NotImplementedError:
        return None
    return getattr(function, "pyro_kl_pair", None)


def upstream_owner(p: type[Distribution], q: type[Distribution]) -> str | None:
    """The function of torch or Pyro that was registered for exactly this pair, by its name."""
    function = _UPSTREAM.get((p, q))
    return None if function is None else f"{function.__module__}.{function.__qualname__}"


def upstream_formula(p: type[Distribution], q: type[Distribution]) -> Formula:
    """The formula of torch or Pyro for exactly this pair, which tests and benchmarks compare."""
    return _UPSTREAM[p, q]


# --- declaring ----------------------------------------------------------------------------------


def derivation_rule(
    rule: Callable[[Family, Family], Pair | None],
) -> Callable[[Family, Family], Pair | None]:
    """Add a rule that derives pairs of families, also of those that are already declared."""
    _RULES.append(rule)
    for p in families():
        for q in families():
            _derive(p, q)
    return rule


def declare(family: Family) -> Family:
    """Declare a family, and register all pairs that follow from it and the other families.

    A second declaration of the class by the same module (a notebook cell run again) replaces the
    first one.

    Args:
        family: the declaration.

    Returns:
        The family, to declare formulas of single pairs with `@formula`.

    Raises:
        TypeError: `family.distribution` is not a distribution class.
        ValueError: there is no example; an example makes no member, or the entropy or a moment
            cannot be evaluated at it; or another module has already declared the class.
    """
    if not isinstance(family, Family):
        raise TypeError(f"declare takes a Family(...), not {family!r}" + see("declare-a-family"))
    check_class(family.distribution, "a family")
    family = replace(family, home=home_of(sys._getframe(1).f_globals.get("__name__", "")))
    if not family.examples:
        raise ValueError(
            f"{family.name}: declare at least one example (constructor arguments): the checks, "
            "the documentation and the reference values start from it." + see("declare-a-family")
        )
    known = _FAMILIES.get(family.distribution)
    if known is not None and known.home != family.home:
        raise ValueError(
            f"{family.name} is already declared in {known.home}; declare a "
            "subclass, or a single pair with @pyro_kl.register." + see("declare-a-family")
        )
    check_examples(family)
    _FAMILIES[family.distribution] = family
    for other in list(_FAMILIES.values()):
        _derive(family, other)
        if other is not family:
            _derive(other, family)
    return family


def _derive(p: Family, q: Family) -> None:
    key = (p.distribution, q.distribution)
    if p.support.may_outgrow(q.support) or (key in _PAIRS and not _PAIRS[key].derived):
        return
    for rule in _RULES:
        pair = rule(p, q)
        if pair is not None:
            if upstream_owner(*key) is None or pair.replaces is not None:
                _install(pair)
            return


def _derive_special_cases(wider: type[Distribution]) -> None:
    """Derive the pairs of special cases of `wider` again, as it now has a formula."""
    inside = [f for f in _FAMILIES.values() if f.special_case_of and f.special_case_of[0] is wider]
    for family in inside:
        for other in [_FAMILIES[wider], *inside]:
            _derive(family, other)
            _derive(other, family)


def register(
    p: type[Any],
    q: type[Any],
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
        cases: at least one worked example, from the densities; the formula must agree with each
            to 6 digits.
        finite: when the KL is finite: "always", or a condition in torch's parameter names.
        reference: author, year, equation: where the result can be verified.
        method: "closed form", "exact sum", "quadrature", "rule" (it calls `kl_divergence` again),
            "point density" or "infinite".
        replaces: why torch's or Pyro's formula for exactly this pair is replaced.
        make_p: a function from the parameters of a case to p; by default the class itself.
        make_q: the same for q.

    Returns:
        A decorator that returns the formula unchanged.

    Raises:
        TypeError: `p` or `q` is not a distribution class, or a case is not a `Case`.
        ValueError: there is no case or no reference; the method is unknown; the formula disagrees
            with a case; or the pair is already registered.

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
    check_class(p, "p")
    check_class(q, "q")
    check_words(f"KL({p.__name__} || {q.__name__})", cases, finite, reference, method)

    def decorate(formula: F) -> F:
        if not callable(formula):
            raise TypeError(
                f"register(...) decorates a function of p and q, not {formula!r}"
                + see("register-a-pair")
            )
        pair = Pair(
            p, q, method, finite, reference, formula, tuple(cases), replaces,
            make_p=make_p, make_q=make_q,
        )  # fmt: skip
        _check_free(pair)
        check_cases(pair)
        _install(pair)
        return formula

    return decorate


def _check_free(pair: Pair) -> None:
    """Refuse a registered pair, unless it is the same function again or the reason is given."""
    known = _PAIRS.get((pair.p, pair.q))
    if known is not None and not known.derived:
        if known.owner != pair.owner:
            raise ValueError(
                f"KL({pair.name}) is already registered to {known.owner}. Import one of the two "
                "modules only, or declare a subclass." + see("register-a-pair")
            )
        return
    owner = upstream_owner(pair.p, pair.q)
    if owner is not None and pair.replaces is None:
        raise ValueError(
            f"KL({pair.name}) is already registered to {owner}. To override it, say why: "
            '`replaces="..."`; the reason goes to the table of pairs.' + see("register-a-pair")
        )


def _install(pair: Pair) -> None:
    """Enter a pair in our table and in torch's registry."""
    _PAIRS[pair.p, pair.q] = pair
    formula, may_note_itself = pair.formula, pair.method == "quadrature"
    use = Use(pair.method, pair.source) if pair.method in EXACTNESS else None
    # A formula reads the distributions inside a product itself; a rule leaves them to the
    # `kl_divergence` that it calls.
    looks_inside = pair.method != "rule" and Independent in (pair.p, pair.q)

    def call(p: Distribution, q: Distribution) -> Tensor:
        if not (keeps_density(type(p), pair.p) and keeps_density(type(q), pair.q)) or (
            looks_inside and (hides_another(p) or hides_another(q))
        ):
            return by_reduction(*hide_parents(p, q))
        noted = mark()
        try:
            with without_tracer_warnings():
                value = formula(p, q)
        except NotImplementedError as declined:
            rewind(noted)
            return by_reduction(p, q, declined)
        # an integral that estimates its error calls `note` itself, with the error
        if noted and use is not None and (not may_note_itself or silent_since(noted)):
            note(use)
        return value

    call.__name__ = call.__qualname__ = getattr(formula, "__name__", "kl")
    call.__doc__ = formula.__doc__
    call.pyro_kl_pair = pair  # type: ignore[attr-defined]
    register_kl(pair.p, pair.q)(call)


def guard_upstream() -> None:
    """Keep torch's and Pyro's own formulas from subclasses with another density."""
    for (p, q), formula in _UPSTREAM.items():
        if torch_kl._KL_REGISTRY[p, q] is formula:
            register_kl(p, q)(_guarded(p, q, formula))


def _guarded(p_class: type, q_class: type, formula: Formula) -> Formula:
    @wraps(formula)
    def call(p: Distribution, q: Distribution) -> Tensor:
        if keeps_density(type(p), p_class) and keeps_density(type(q), q_class):
            return formula(p, q)
        return by_reduction(*hide_parents(p, q))

    return call


def _registered_pair(p: type[Distribution], q: type[Distribution]) -> Pair:
    """The pair that a pickle refers to: like a function, a pair is stored by its name."""
    try:
        return _PAIRS[p, q]
    except KeyError:
        raise LookupError(
            f"KL({p.__name__} || {q.__name__}) is not registered here: import the module that "
            "registers it first" + see("no-such-pair")
        ) from None


copyreg.pickle(Pair, lambda pair: (_registered_pair, (pair.p, pair.q)))


# --- formulas on parameters ---------------------------------------------------------------------


#: A worked case as a row: the parameters of p and of q, in the order of `Family.parameters`, and
#: the value.
Row = tuple[Sequence[Any], Sequence[Any], float]


def formula(
    p: Family,
    q: Family,
    *,
    cases: Sequence[Case | Row],
    reference: str,
    finite: str = "always",
    method: str = "closed form",
    replaces: str | None = None,
    partials: Partials | None = None,
    masked: bool = False,
) -> Callable[[Kernel], Kernel]:
    """Register a formula for one pair of declared families, on their parameters.

    Like `register`, for a function of two mappings from torch's parameter names to float64
    tensors; reading, promotion, broadcasting and rounding are done around it. The formula must be
    elementwise.

    Args:
        p: the family of the first argument.
        q: the family of the second argument.
        cases: at least one worked case: a `Case`, or a tuple of p's parameters, q's parameters and
            the value.
        reference: as for `register`; so are `finite`, `method` and `replaces`.
        finite: when the KL is finite.
        method: a word of `METHODS`.
        replaces: why torch's or Pyro's formula is replaced.
        partials: a function of the same two mappings that returns the derivatives by p's and then
            q's parameters, if it is faster or more accurate than autograd.
        masked: whether the value has to be set to nan where a parameter is, as for `lift`.
    """

    def as_case(case: Case | Row) -> Case:
        if not isinstance(case, tuple):
            return case
        of_p, of_q, value = case
        return Case(
            dict(zip(p.parameters, of_p, strict=True)),
            dict(zip(q.parameters, of_q, strict=True)),
            value,
        )

    def decorate(kernel: Kernel) -> Kernel:
        register(
            p.distribution, q.distribution,
            cases=[as_case(case) for case in cases],
            finite=finite, reference=reference, method=method, replaces=replaces,
        )(lift(kernel, p, q, partials, masked=masked))  # fmt: skip
        _KERNELS[p.distribution, q.distribution] = kernel
        _derive_special_cases(p.distribution)
        return kernel

    return decorate


def kernel_of(p: type[Distribution], q: type[Distribution]) -> Kernel | None:
    """The formula on parameters that `@formula` declared for a pair; None if there is none."""
    return _KERNELS.get((p, q))
