"""Pairs without a common density: atoms and densities, points, improper distributions."""

from __future__ import annotations

from pyro.distributions import Delta, ImproperUniform, Unit
from torch.distributions import Distribution

from ..messages import see
from ..registry.reduction import NoDivergence, describe
from ..registry.subclasses import is_a
from ..wrappers.delta import is_atomic


def is_point(distribution: Distribution) -> bool:
    """Whether it has a density at one point alone, by Pyro's convention."""
    return is_a(distribution, (Delta, Unit))


def is_singular(p: Distribution, q: Distribution) -> bool:
    """Whether one has mass at points only and the other none: they share no mass."""
    of_p, of_q = is_atomic(p), is_atomic(q)
    return of_p is not None and of_q is not None and of_p is not of_q


def check_normalised(name: str, p: Distribution, q: Distribution) -> None:
    """Refuse points and improper distributions.

    Raises:
        NoDivergence: one of the two integrates to another number than 1.
    """
    for side in (p, q):
        if is_point(side) or is_a(side, ImproperUniform):
            raise NoDivergence(
                f"{name}({describe(p)} || {describe(q)}): the density of {describe(side)} is no "
                "normalised one, so that its KL is a convention and there is no such divergence"
                + see("not-a-kl")
            )
