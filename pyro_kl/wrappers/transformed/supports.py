"""Supports as intervals of the line."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import constraints

from ...numerics.concrete import holds_everywhere


def bounds(support: Any) -> tuple[Any, Any] | None:
    """The ends of an interval of the line; None for anything else."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support in (constraints.real, constraints.real_vector):
        return -torch.inf, torch.inf
    low = getattr(support, "lower_bound", None)
    high = getattr(support, "upper_bound", None)
    if low is None and high is None:
        return None
    return -torch.inf if low is None else low, torch.inf if high is None else high


def lives_above(support: Any, low: float) -> bool:
    """Whether a support is known to have no point below a number."""
    ends = bounds(support)
    return ends is not None and holds_everywhere(ends[0], lambda end: end >= low)


def is_inside(support: Any, domain: Any) -> bool:
    """Whether a support is known to be inside of a domain."""
    ends, room = bounds(support), bounds(domain)
    if room == (-torch.inf, torch.inf):
        return True
    if ends is None or room is None:
        return type(support) is type(domain)
    return holds_everywhere(ends[0] - room[0], lambda gap: gap >= 0) and holds_everywhere(
        room[1] - ends[1],
        lambda gap: (gap >= 0) | (gap != gap),  # inf - inf
    )
