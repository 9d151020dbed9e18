"""Whether a KL under maps is finite: the supports, and p's tails against the growth of -log q.

At an end of p's support let t be the distance from the middle, or 1 over that from a finite end.
If p's tail is known as a function of t, the KL is finite where the cost -log q - log|T'| grows
slowly enough with t. All growths are on one scale of levels,

    c (log t)^k,  c t^k,  exp(c t^k),  exp(exp(c t^k)).

Maps like exp raise the level by one, logarithms lower it by one, and powers leave it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions.transforms import (
    AffineTransform,
    PowerTransform,
    Transform,
    _InverseTransform,
)

from ...numerics.concrete import holds_everywhere
from ...registry.line import Point
from ...registry.subclasses import is_a
from .distribution_line import DistributionLine, Tail
from .transform_rules import direction, image_of, rule_of

Number = Tensor | float
Mask = Tensor | bool


@dataclass(frozen=True)
class Growth:
    """How a quantity grows with t; `factor` and `front` are nan where they are not known.

    Level 0 is c t^k, 1 its exponential, 2 that of the exponential, -1 is c (log t)^k. `front` is
    the logarithm of what an exponential is multiplied by, and what is added to c log t.
    """

    level: int = 0
    power: Number = 1.0
    factor: Number = 1.0
    front: Number = math.nan

    def raised(self, exponent: Number) -> Growth:
        if self.level > 1:
            return self
        if self.level == 1:
            return replace(self, factor=self.factor * exponent)
        power, factor = self.power * exponent, self.factor**exponent
        return replace(self, power=power, factor=factor, front=math.nan)

    def stretched(self, factor: Number) -> Growth:
        if self.level >= 1:
            return self
        return replace(self, factor=self.factor * factor, front=self.front * factor)

    def shifted(self, distance: Number) -> Growth:
        return replace(self, front=self.front + distance) if self.level == -1 else self

    def exponential(self, rate: Number = 1.0) -> Growth | None:
        """The growth of exp(rate s) for an s that grows so; None if it is not on the scale."""
        if self.level >= 0:
            return replace(self.stretched(rate), level=self.level + 1)
        if self.level == -1 and holds_everywhere(self.power, lambda k: k == 1.0):
            return Growth(0, self.factor * rate, torch.exp(torch.as_tensor(self.front * rate)))
        return None

    def logarithm(self, rate: Number = 1.0) -> Growth:
        """The growth of rate log s."""
        if self.level == 0:
            front = torch.log(torch.as_tensor(self.factor, dtype=torch.float64))
            return Growth(-1, 1.0, self.power * rate, front * rate)
        return replace(self, level=self.level - 1).stretched(rate)


# --- through maps -------------------------------------------------------------------------------


def at_end(
    maps: Sequence[Transform], start: Point, side: int
) -> tuple[Growth, Number, int] | None:
    """How the distance at an end of the image grows, the end, and its side (0 lower, 1 upper).

    None if that is not known.
    """
    point, growth = start, Growth()
    for transform in maps:
        found = _growth_of_image(transform, growth, (point.low, point.high)[side], side)
        sign = direction(transform)
        if found is None or sign == 0:
            return None
        point, growth, side = image_of([transform], point), found, side if sign > 0 else 1 - side
    return growth, (point.low, point.high)[side], side


def _growth_of_image(
    transform: Transform, growth: Growth, end: Number, side: int
) -> Growth | None:
    inverse = isinstance(transform, _InverseTransform)
    rule = rule_of(transform.inv if inverse else transform)
    if rule is None:
        return None
    if is_a(transform, AffineTransform):
        size = torch.as_tensor(transform.scale).abs()
        if not holds_everywhere(end, _is_infinite):
            return growth.stretched(1 / size)
        outward = (-1, 1)[side] * direction(transform)
        return growth.stretched(size).shifted(outward * torch.as_tensor(transform.loc))
    if is_a(transform, PowerTransform):
        special = (0.0, math.inf)[side]
        image: Growth | None = growth.raised(torch.as_tensor(transform.exponent).abs())
    else:
        assert rule.ends is not None
        special = rule.ends[side] if inverse else (-math.inf, math.inf)[side]
        rate = rule.rates[side]
        if rate == 0.0:
            image = growth
        else:
            image = growth.logarithm(1 / rate) if inverse else growth.exponential(rate)
            if rate != 1.0 and image is not None:  # tanh(x) is 1 - 2 exp(-2 x)
                image = replace(image, front=math.nan)
                if growth.level == -1:
                    image = replace(image, factor=math.nan)
    if all_at(end, special):
        return image
    # elsewhere the map is smooth, with a slope that is not known
    return growth.stretched(math.nan) if holds_everywhere(end, lambda x: x != special) else None


def _is_infinite(x: Any) -> Any:
    return abs(x) == math.inf


def all_at(end: Number, place: float) -> bool:
    return holds_everywhere(end, lambda x: x == place)


# --- whether the mean of the cost is finite -----------------------------------------------------


def infinite_by_tails(
    tails: tuple[Tail, Tail], start: Point, maps: Sequence[Transform], q: DistributionLine
) -> Tensor:
    """Where the KL is known to be infinite by its tails.

    Args:
        tails: p's, lower and upper.
        start: any point of p's support, with its ends.
        maps: from there to the line of q.
        q: the other distribution.
    """
    maps, q = [*maps, *q.back], q.base or q
    never: Mask = False
    for side, tail in enumerate(tails):
        found = at_end(maps, start, side)
        if found is None or q.tails is None:
            continue
        growth, end, other = found
        touches = torch.as_tensor(end == (q.low, q.high)[other])
        shared = by_rows_of_tail(
            q.tails[other], partial(_has_no_mean_against, growth=growth, p=tail)
        )
        inside = _has_no_mean(growth.logarithm(), tail)
        never = never | (touches & shared) | (~touches & inside)
    return torch.as_tensor(never)


def by_rows_of_tail(tail: Tail, of_kind: Callable[[Tail], Any]) -> Any:
    """What a function of a tail gives, if some rows have a power tail and others have none.

    Args:
        tail: as a GeneralizedPareto has it, whose tail is exponential where its index is infinite.
        of_kind: the function, of a tail of one kind.
    """
    rows = torch.as_tensor(tail.index) < math.inf
    if (
        all_at(tail.growth, 0.0)
        or holds_everywhere(tail.growth, lambda k: k > 0)
        or not rows.any()
    ):
        return of_kind(tail)
    power = replace(tail, index=torch.where(rows, torch.as_tensor(tail.index), 1.0), growth=0.0)
    rest = replace(
        tail, index=math.inf, growth=torch.where(rows, 1.0, torch.as_tensor(tail.growth))
    )
    found = (torch.as_tensor(of_kind(x)) for x in (power, rest))
    return torch.where(rows, *found)


def _has_no_mean_against(q: Tail, growth: Growth, p: Tail) -> Mask:
    return _has_no_mean(_cost(growth, q), p)


def _cost(growth: Growth, q: Tail) -> Growth | None:
    """How -log q grows with t, if the distance grows as given and q has this tail."""
    if all_at(q.growth, math.inf):
        return growth.exponential(q.rate)
    if not all_at(q.growth, 0.0):
        return growth.raised(q.growth)
    log = growth.logarithm()
    return log.raised(2.0) if all_at(q.index, math.inf) else log


def _has_no_mean(cost: Growth | None, tail: Tail) -> Mask:
    """Whether the mean of the cost is known to be infinite."""
    if cost is None or cost.level < 0:
        return False
    if not all_at(tail.index, math.inf):
        return tail.index < math.inf if cost.level > 0 else cost.power >= tail.index
    if cost.level == 0:
        return False
    double, heavy = all_at(tail.growth, math.inf), all_at(tail.growth, 0.0)
    level, power = (2, 1.0) if double else (0, 1.0) if heavy else (1, tail.growth)
    if cost.level != level:
        return cost.level > level
    return (cost.power > power) | ((cost.power == power) & (cost.factor >= tail.rate))


# --- supports -----------------------------------------------------------------------------------


def is_inside_of(point: Point, q: DistributionLine, like: Tensor) -> Tensor:
    """Whether the ends of a point's support are in q's support, up to rounding."""
    image_low, image_high, low, high = (
        torch.as_tensor(end, dtype=like.dtype, device=like.device)
        for end in (point.low, point.high, q.low, q.high)
    )
    slack = 16 * torch.finfo(like.dtype).eps
    return (image_low >= low - slack * low.abs().nan_to_num(posinf=0.0)) & (
        image_high <= high + slack * high.abs().nan_to_num(posinf=0.0)
    )


def is_always_outside(point: Point, q: DistributionLine) -> bool:
    """Whether an end of a point's support is outside of q's support for all parameters."""
    pairs = ((point.low, q.low, 1), (point.high, q.high, -1))
    return any(
        not isinstance(mine, Tensor)
        and not isinstance(other, Tensor)
        and side * (mine - other) < 0
        for mine, other, side in pairs
    )
