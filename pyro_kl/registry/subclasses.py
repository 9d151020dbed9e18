"""User subclasses of torch's and Pyro's classes: whether the parent's formulas hold for them.

A subclass that changes the constructor, `expand` or `has_rsample` is the same distribution. One
with its own `log_prob`, `rsample` or `support` is another distribution, for which the formulas of
its parent are wrong; likewise a transform with its own map, inverse or Jacobian.
"""

from __future__ import annotations

from typing import Any, TypeGuard, TypeVar, overload

import pyro.distributions
import torch
from torch.distributions import Distribution, Independent

_Part = TypeVar("_Part")
#: Methods that define a distribution or a transform.
_DEFINING = (
    "log_prob",
    "rsample",
    "support",
    "__call__",
    "_call",
    "_inverse",
    "log_abs_det_jacobian",
)
#: Classes with these methods leave the density to their subclasses.
_ABSTRACT = (Distribution.log_prob, pyro.distributions.Distribution.log_prob)
#: Earlier results: a call costs one look-up.
_VERDICTS: dict[tuple[type, type], bool] = {}


def is_upstream(cls: type) -> bool:
    """Whether a class is torch's or Pyro's own."""
    return cls.__module__.partition(".")[0] in ("torch", "pyro")


def class_of(distribution: Distribution) -> Any:
    """The class of a distribution, torch's own for Pyro's wrapper of it."""
    cls = type(distribution)
    return cls.__mro__[1] if cls.__module__ == "pyro.distributions.torch" else cls


def keeps_density(cls: type, declared: type) -> bool:
    """Whether a class has the density, or is the map, of the class that it is derived from.

    It is true if the parent has no density of its own, as `Distribution`.
    """
    known = _VERDICTS.get((cls, declared))
    if known is None:
        known = _keeps(cls, declared)
        if not torch.compiler.is_compiling():
            _VERDICTS[cls, declared] = known
    return known


def _keeps(cls: type, declared: type) -> bool:
    if cls is declared or getattr(declared, "log_prob", None) in _ABSTRACT:
        return True
    between = cls.__mro__[: cls.__mro__.index(declared)]
    return not any(
        not is_upstream(base) and any(x in vars(base) for x in _DEFINING) for base in between
    )


@overload
def is_a(part: Any, classes: type[_Part]) -> TypeGuard[_Part]: ...


@overload
def is_a(part: Any, classes: tuple[type, ...]) -> bool: ...


def is_a(part: Any, classes: type | tuple[type, ...]) -> bool:
    """`isinstance`, but false for a subclass with another density or another map."""
    if not isinstance(part, classes):
        return False
    if not isinstance(classes, tuple):
        return keeps_density(type(part), classes)
    return any(isinstance(part, cls) and keeps_density(type(part), cls) for cls in classes)


def hides_another(distribution: Any) -> bool:
    """Whether the base of a product is of a subclass with another density than its parent."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    cls = type(distribution)
    return not keeps_density(cls, next(base for base in cls.__mro__ if is_upstream(base)))
