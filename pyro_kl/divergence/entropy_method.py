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
from ..registry.subclasses import keeps_density

#: In float32 torch's differences of lgammas have no digits at concentrations of 1e6.
_IMPRECISE = (Beta, Chi2, Dirichlet, Gamma, InverseGamma, StudentT)


def install() -> None:
    """Let `Distribution.entropy` find the entropies of pyro_kl."""
    _replace(Distribution, _if_raises)
    _replace(Binomial, _if_raises)  # of unequal counts
    Poisson.entropy = Distribution.entropy
    for cls in _IMPRECISE:
        _replace(cls, _instead)


def _replace(cls: type[Any], way: Callable[..., Callable[[Any], Tensor]]) -> None:
    own = cls.entropy
    if not hasattr(own, "pyro_kl_cls"):  # the module may be imported again
        found = wraps(own)(way(cls, own))
        found.pyro_kl_cls = cls  # type: ignore[attr-defined]
        cls.entropy = found


def _if_raises(cls: type[Any], own: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    def entropy(self: Distribution) -> Tensor:
        try:
            return own(self)
        except NotImplementedError as missing:
            return _exact(self, missing)

    return entropy


def _instead(cls: type[Any], own: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    def entropy(self: Distribution) -> Tensor:
        if is_traced() or not keeps_density(type(self), cls):
            return own(self)
        return _exact(self, NotImplementedError())

    return entropy


def _exact(distribution: Distribution, missing: NotImplementedError) -> Tensor:
    from .entropy import exact_entropy  # nothing else of `divergence` is needed by an import

    value = exact_entropy(distribution)
    if value is None:
        raise missing
    return value
