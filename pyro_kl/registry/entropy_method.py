"""Entropies that torch lacks, or whose digits it loses, found by `Distribution.entropy`.

Only formulas and sums are found so: code that draws a sample where a class has no entropy must not
wait for an integral instead. A class with an `entropy` of its own keeps it, except where torch
raises, or loses the digits of large concentrations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import Tensor
from torch.distributions import (
    Beta,
    Binomial,
    Chi2,
    Dirichlet,
    Distribution,
    Gamma,
    InverseGamma,
    Poisson,
    StudentT,
)

from ..numerics.concrete import is_traced
from .subclasses import keeps_density

#: In float32 torch's differences of lgammas have no digits at concentrations of 1e6.
_IMPRECISE = (Beta, Chi2, Dirichlet, Gamma, InverseGamma, StudentT)


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
    setattr(Poisson, "entropy", Distribution.entropy)  # noqa: B010
    for cls in _IMPRECISE:
        _replace(cls, exact, _instead)


def _replace(
    cls: type[Any], exact: Exact, way: Callable[[type[Any], Method, Exact], Method]
) -> None:
    own = cls.entropy
    if not hasattr(own, "pyro_kl_cls"):  # the module may be imported again
        found = wraps(own)(way(cls, own, exact))
        found.pyro_kl_cls = cls  # type: ignore[attr-defined]
        cls.entropy = found


def _if_raises(cls: type[Any], own: Method, exact: Exact) -> Method:
    def entropy(self: Distribution) -> Tensor:
        try:
            return own(self)
        except NotImplementedError:
            value = exact(self)
            if value is None:
                raise
            return value

    return entropy


def _instead(cls: type[Any], own: Method, exact: Exact) -> Method:
    def entropy(self: Distribution) -> Tensor:
        value = exact(self) if keeps_density(type(self), cls) and not is_traced() else None
        return own(self) if value is None else value

    return entropy
