"""Subclasses of others: whether what is known of a class holds for what is derived from it.

A class that somebody derives from torch's or Pyro's for its constructor, its `expand` or its
`has_rsample` is the same distribution. One that brings its own `log_prob`, `rsample` or `support`
is another one, of which the formulas of its parent know nothing. Likewise a transform that brings
its own map, inverse or Jacobian.
"""

from __future__ import annotations

from typing import Any, TypeGuard, TypeVar, overload

import pyro.distributions
import torch
from torch.distributions import Distribution, Independent

_Part = TypeVar("_Part")
#: What says which distribution, or which transform, it is.
_SAYS = ("log_prob", "rsample", "support", "__call__", "_call", "_inverse", "log_abs_det_jacobian")
#: What is derived from these says for the first time what its density is.
_OPEN = (Distribution.log_prob, pyro.distributions.Distribution.log_prob)
#: What has been found out: a call costs one look-up.
_VERDICTS: dict[tuple[type, type], bool] = {}


def is_upstream(cls: type) -> bool:
    """Whether a class is torch's or Pyro's own."""
    return cls.__module__.partition(".")[0] in ("torch", "pyro")


def class_of(distribution: Distribution) -> Any:
    """The class of a distribution, torch's own for Pyro's wrapper of it."""
    cls = type(distribution)
    return cls.__mro__[1] if cls.__module__ == "pyro.distributions.torch" else cls


def keeps_density(cls: type, declared: type) -> bool:
    """Whether a class is the distribution, or the transform, that it is derived from.

    A class without a density of its own, as `Distribution`, leaves it to those derived from it.
    """
    known = _VERDICTS.get((cls, declared))
    if known is None:
        known = _keeps(cls, declared)
        if not torch.compiler.is_compiling():
            _VERDICTS[cls, declared] = known
    return known


def _keeps(cls: type, declared: type) -> bool:
    if cls is declared or getattr(declared, "log_prob", None) in _OPEN:
        return True
    between = cls.__mro__[: cls.__mro__.index(declared)]
    return not any(
        not is_upstream(base) and any(x in vars(base) for x in _SAYS) for base in between
    )


@overload
def is_a(part: Any, classes: type[_Part]) -> TypeGuard[_Part]: ...


@overload
def is_a(part: Any, classes: tuple[type, ...]) -> bool: ...


def is_a(part: Any, classes: type | tuple[type, ...]) -> bool:
    """`isinstance`, for a distribution or a transform that is no other one than the class says."""
    if not isinstance(part, classes):
        return False
    if not isinstance(classes, tuple):
        return keeps_density(type(part), classes)
    return any(isinstance(part, cls) and keeps_density(type(part), cls) for cls in classes)


def hides_another(distribution: Any) -> bool:
    """Whether a product is one of a subclass that is another distribution than its parent."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    cls = type(distribution)
    return not keeps_density(cls, next(base for base in cls.__mro__ if is_upstream(base)))
