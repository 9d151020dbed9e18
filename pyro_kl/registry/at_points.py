"""Sums over points: pairs of classes whose densities are compared at the points of one rule.

The points are the atoms of a discrete class, or the nodes of a quadrature rule that resolves p. A
divergence or an entropy is then a sum over the last dimension.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..messages import see
from .provenance import home_of
from .subclasses import is_a

F = TypeVar("F", bound=Callable[..., "AtPoints | None"])
_Pair = tuple[type[Distribution], type[Distribution]]


class AtPoints(NamedTuple):
    """Logs of two densities (or masses) at common points, along the last dimension.

    Args:
        log_p: of p, whose mass the points resolve.
        log_q: of q.
        log_weight: of the rule's weights; None for atoms.
        q_elsewhere: q's mass at atoms that are none of the points.
    """

    log_p: Tensor
    log_q: Tensor
    log_weight: Tensor | None = None
    q_elsewhere: Tensor | float = 0.0

    @property
    def weight(self) -> Tensor | float:
        return 1.0 if self.log_weight is None else torch.exp(self.log_weight)


#: So many numbers a sum over points may take.
_MOST = 1 << 24


def check_size(count: int) -> None:
    """Refuse a sum over too many points.

    Raises:
        NotImplementedError: it would take more than 2^24 numbers.
    """
    if count > _MOST:
        raise NotImplementedError(
            f"a sum over all outcomes takes {count:.3g} numbers, more than {_MOST:,}"
            + see("no-integral")
        )


_ATOMS: dict[_Pair, Callable[[Any, Any], AtPoints | None]] = {}
_NODES: dict[_Pair, Callable[[Any, Any, int], AtPoints | None]] = {}


def at_atoms(p: Sequence[type[Any]], q: Sequence[type[Any]]) -> Callable[[F], F]:
    """Declare `atoms(p, q) -> AtPoints` of each class of p's and each of q's.

    The function returns None where it does not apply.
    """

    def decorate(atoms: F) -> F:
        _ATOMS.update(dict.fromkeys(itertools.product(p, q), atoms))
        return atoms

    return decorate


def at_nodes(classes: Sequence[type[Any]]) -> Callable[[F], F]:
    """Declare `nodes(p, q, fineness) -> AtPoints` of each pair of the classes.

    The nodes resolve p, with `fineness` times as many of them along each dimension as for 1; None
    where it does not apply.
    """

    def decorate(nodes: F) -> F:
        _NODES.update({(p, q): nodes for p in classes for q in classes})
        return nodes

    return decorate


def both_at_atoms(p: Distribution, q: Distribution) -> tuple[AtPoints, str] | None:
    """p and q at all atoms of p, and where they are listed; None for other classes."""
    for (left, right), atoms in _ATOMS.items():
        if is_a(p, left) and is_a(q, right):
            found = atoms(p, q)
            if found is not None:
                return found, home_of(atoms.__module__)
    return None


def both_at_nodes(
    p: Distribution, q: Distribution, fineness: int = 1
) -> tuple[AtPoints, str] | None:
    """p and q at nodes that resolve p, and where the rule is; None for other classes."""
    for (left, right), nodes in _NODES.items():
        if is_a(p, left) and is_a(q, right):
            found = nodes(p, q, fineness)
            if found is not None:
                return found, home_of(nodes.__module__)
    return None
