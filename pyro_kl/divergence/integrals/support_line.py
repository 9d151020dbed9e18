"""The map from the line to the support of a distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...numerics.special.logarithms import logaddexp
from ...registry.line import LARGEST, Point, half_line, interval
from ...wrappers.circle import ends_of

#: A lower and an upper number.
Ends = tuple[float, float]


class SupportLine(NamedTuple):
    """The map from the line to a support.

    Attributes:
        at: of a place y, the point there.
        place: its inverse, of x.
        limits: between which y a point is not rounded to an end.
    """

    at: Callable[[Tensor], Point]
    place: Callable[[Tensor], Tensor]
    limits: Ends


def line_of_support(p: Distribution) -> SupportLine | None:
    """The line of p's support; None if p is not continuous or does not declare one."""
    ends = ends_of(p)
    if ends is None:
        return None
    low, high = (torch.as_tensor(end, dtype=torch.float64) for end in ends)
    nearest = [-LARGEST if bool((end == 0).all()) else -34.0 for end in (low, high)]
    has_low, has_high = (not bool(end.isinf().all()) for end in (low, high))
    if has_low and has_high:
        return SupportLine(
            lambda y: interval(y, low, high),
            lambda x: torch.logit((x - low) / (high - low)),
            (nearest[0], -nearest[1]),
        )
    if has_low:
        return SupportLine(
            lambda y: _shifted(half_line(y), low, 1),
            lambda x: torch.log(x - low),
            (nearest[0], LARGEST),
        )
    if has_high:
        return SupportLine(
            lambda y: _shifted(half_line(-y), high, -1),
            lambda x: -torch.log(high - x),
            (-LARGEST, -nearest[1]),
        )
    return SupportLine(
        lambda y: Point(torch.sinh(y), logaddexp(y, -y) - math.log(2)),
        torch.asinh,
        (-LARGEST, LARGEST),
    )


def _shifted(point: Point, end: Tensor, side: int) -> Point:
    x = end + side * point.x
    if side > 0:
        return Point(x, point.log_slope, low=end, log_above=point.log_above)
    return Point(x, point.log_slope, high=end, log_below=point.log_above)


# --- the search ---------------------------------------------------------------------------------
