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


_RULES: dict[
    tuple[type[Distribution], type[Distribution]], Callable[[Any, Any], AtPoints | None]
] = {}


def at_points(p: Sequence[type[Any]], q: Sequence[type[Any]]) -> Callable[[F], F]:
    """Declare `rule(p, q) -> AtPoints` of each class of p's and each of q's.

    The rule returns None where it does not apply.
    """

    def decorate(rule: F) -> F:
        _RULES.update(dict.fromkeys(itertools.product(p, q), rule))
        return rule

    return decorate


def both_at_points(p: Distribution, q: Distribution) -> tuple[AtPoints, str] | None:
    """p and q at points that resolve p, and where the rule is; None without a rule."""
    for (left, right), rule in _RULES.items():
        if is_a(p, left) and is_a(q, right):
            found = rule(p, q)
            if found is not None:
                return found, home_of(rule.__module__)
    return None
