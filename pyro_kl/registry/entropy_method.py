"""Entropies that torch lacks, or whose digits it loses, found by `Distribution.entropy`.

Only formulas and sums are found so: code that draws a sample where a class has no entropy must not
wait for an integral instead. A class with an `entropy` of its own keeps it, except where torch
raises, or loses the digits of large concentrations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    Binomial,
    Dirichlet,
    Distribution,
    Gamma,
    InverseGamma,
    Poisson,
    StudentT,
)

from ..numerics.concrete import is_traced
from .subclasses import keeps_density
from .tensors import promoted

#: In float32 torch's differences of lgammas have no digits at concentrations of 1e6. Chi2's are
#: Gamma's.
_IMPRECISE = (Beta, Dirichlet, Gamma, InverseGamma, StudentT)

#: The entropy of a distribution by a formula or a sum; None if there is none.
Exact = Callable[[Distribution], "Tensor | None"]
Method = Callable[[Any], Tensor]


def install(exact: Exact) -> None:
    """Let `Distribution.entropy` find the entropies of pyro_kl.

    Args:
        exact: finds them; it is imported when it is first called.
    """
    _replace(Distribution, exact, _if_raises)
    _replace(Binomial, exact, _if_raises)  # of unequal counts
    _replace(Poisson, exact, _if_raises)  # whose method is that of the exponential families
    for cls in _IMPRECISE:
        _replace(cls, exact, _instead)


def _replace(
    cls: type[Any], exact: Exact, way: Callable[[type[Any], Method, Exact], Method]
) -> None:
    own = cls.entropy
    if getattr(own, "pyro_kl_cls", None) is not cls:  # the module may be imported again
        found = wraps(own)(way(cls, own, exact))
        found.pyro_kl_cls = cls  # type: ignore[attr-defined]
        found.__module__, found.__qualname__ = cls.__module__, f"{cls.__qualname__}.entropy"
        cls.entropy = found


def _if_raises(cls: type[Any], own: Method, exact: Exact) -> Method:
    def entropy(self: Distribution) -> Tensor:
        try:
            return own(self)
        except NotImplementedError as missing:
            try:
                value = exact(self)
            except Exception as error:  # code that waits for `missing` meets no other error
                raise missing from error
            if value is None:
                raise
            return value

    return entropy


def _instead(cls: type[Any], own: Method, exact: Exact) -> Method:
    def entropy(self: Distribution) -> Tensor:
        value = exact(self) if _is_in_question(self, cls) and not is_traced() else None
        return own(self) if value is None else value

    return entropy


def _is_in_question(distribution: Any, cls: type[Any]) -> bool:
    """Whether it is of the class, and of a dtype in which torch loses digits: not float64."""
    if not isinstance(distribution, cls) or not keeps_density(type(distribution), cls):
        return False
    return promoted((distribution,)) is not torch.float64
