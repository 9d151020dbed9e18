"""Entropies of structured classes: the declared formulas, and how they are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from torch import Tensor
from torch.distributions import Distribution

from .provenance import home_of
from .subclasses import is_a

F = TypeVar("F", bound=Callable[..., "Tensor | None"])


class _Declared(NamedTuple):
    formula: Callable[[Any], Tensor | None]
    method: str


_FORMULAS: dict[type[Distribution], _Declared] = {}


def entropy_formula(*classes: type[Any], method: str = "closed form") -> Callable[[F], F]:
    """Declare `formula(p) -> Tensor` of one or more classes; None where it does not apply."""

    def decorate(formula: F) -> F:
        for cls in classes:
            _FORMULAS[cls] = _Declared(formula, method)
        return formula

    return decorate


def declared_entropy(p: Distribution, method: str | None = None) -> tuple[Tensor, str, str] | None:
    """The entropy by the formula of p's class, its method, and where it is; None without one.

    Args:
        p: a distribution.
        method: if given, the method that the formula has to have.
    """
    for cls in type(p).__mro__:
        found = _FORMULAS.get(cls)
        if found is not None and method in (None, found.method) and is_a(p, cls):
            value = found.formula(p)
            if value is not None:
                return value, found.method, home_of(found.formula.__module__)
    return None
