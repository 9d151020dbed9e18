"""Where the integral of p^a q^(1 - a) is finite: from supports and tails, for orders a above 1.

It is infinite where p has mass and q has none, and where q's tail is too light for p's. At an end
of p's support let t be the distance from the middle, or 1 over that from a finite end. For both
distributions -log of the mass beyond t grows like one of the functions of `Growth`; a power tail
of index i is i log t. Maps do not change these masses, but the distance. The integral is finite
where a times p's function minus a - 1 times q's goes to infinity: p's is of a higher level, of a
higher power, or the difference of the factors, a c_p - (a - 1) c_q, is positive. At an end of p's
inside of q's support, q has the index 1. Where that difference is 0, a null set, the integral is
called infinite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions.transforms import Transform

from ...messages import see
from ...registry.line import Point
from .distribution_line import DistributionLine, Tail
from .finiteness import (
    Growth,
    all_at,
    at_end,
    by_rows_of_tail,
    is_always_outside,
    is_inside_of,
)
from .transform_rules import image_of

#: Between 1, where the integral is finite, and 0, where it is not.
_ALIKE = 0.5


class Verdict(NamedTuple):
    """What the tails say.

    Attributes:
        finite: where the integral is finite.
        alike: of the lower and of the upper end of p's line, for the order infinity: where p and q
            fall alike as far as levels, powers and factors say, or it is not known.
    """

    finite: Tensor
    alike: tuple[Tensor, Tensor]


def powers_are_finite(
    line: DistributionLine,
    start: Point,
    maps: Sequence[Transform],
    q: DistributionLine,
    alpha: float,
    rows: Tensor,
) -> Verdict:
    """Where the integral of p^alpha q^(1 - alpha) is finite, for alpha > 1.

    Args:
        line: p's line.
        start: a point of it, with the ends of the support.
        maps: from there to p.
        q: the other distribution.
        alpha: the order. For infinity: where log p - log q may have an upper bound. At an end
            where p and q fall alike, this depends on more than their growths say.
        rows: where it is asked for.

    Raises:
        NotImplementedError: how fast one of the tails falls is not known, and it matters.
    """
    image, nowhere = image_of(maps, start), torch.zeros_like(rows)
    if is_always_outside(image, q):
        return Verdict(nowhere, (nowhere, nowhere))
    finite = rows & is_inside_of(image, q, start.x)
    maps, q = [*maps, *q.back], q.base or q
    alike = [nowhere, nowhere]
    for side in range(2) if bool(finite.any()) else ():
        found = at_end(maps, start, side)
        if line.tails is None or q.tails is None or found is None:
            raise _unknown()
        growth, end, other = found
        touches = torch.as_tensor(end == (q.low, q.high)[other])
        inside = _at_this_end(line.tails[side], Tail(1.0, 0.0), growth, not maps, alpha)
        if bool(touches.any()):
            shared = _at_this_end(line.tails[side], q.tails[other], growth, not maps, alpha)
            inside = torch.where(touches, shared, inside)
        if bool((finite & inside.isnan()).any()):
            raise _unknown()
        finite = finite & (inside > 0)
        alike[side] = (inside == _ALIKE).expand(rows.shape)
    return Verdict(finite, (alike[0], alike[1]))


def _at_this_end(p: Tail, q: Tail, growth: Growth, as_given: bool, alpha: float) -> Tensor:
    """1 where the integral is finite at an end, 0 where it is infinite, nan where not known.

    For the order infinity, `_ALIKE` where p and q fall alike, or it is not known.

    Args:
        p: p's tail there, on its line.
        q: q's, on its own.
        growth: how the distance on q's line grows with that on p's.
        as_given: whether there are no maps between them.
        alpha: the order.
    """

    def of_rows(p: Tail, q: Tail) -> Tensor:
        mine, theirs = _fall(Growth(), p, True), _fall(growth, q, as_given)
        return _converges(mine, theirs, alpha)

    return by_rows_of_tail(p, lambda p: by_rows_of_tail(q, lambda q: of_rows(p, q)))


def _fall(growth: Growth, tail: Tail, as_given: bool) -> Growth | None:
    """How -log of the mass beyond t grows, if the distance of this tail grows as given."""
    if all_at(tail.growth, math.inf):
        found = growth.exponential(tail.rate)
        if found is not None and found.level == 0:  # the distance is a logarithm
            return found.stretched(torch.exp(torch.as_tensor(tail.decay)))
        return found and replace(found, front=tail.decay if as_given else math.nan)
    if not all_at(tail.growth, 0.0):
        return growth.raised(tail.growth).stretched(tail.decay)
    if all_at(tail.index, math.inf):
        return growth.logarithm().raised(2.0).stretched(tail.decay)
    return growth.logarithm(tail.index)


def _converges(p: Growth | None, q: Growth | None, alpha: float) -> Tensor:
    """1 where alpha times p's growth less alpha - 1 times q's goes to infinity, 0, or nan.

    nan: that is not known.
    """
    if p is None or q is None:
        return torch.tensor(math.nan)
    if p.level != q.level:
        return torch.tensor(float(p.level > q.level))
    pairs = [(p.power, q.power)] + ([(p.factor, q.factor)] if p.level > 0 else [])
    last = (p.front, q.front) if p.level > 0 else (p.factor, q.factor)
    c, d = (torch.as_tensor(x, dtype=torch.float64) for x in last)
    if alpha == math.inf:
        found = torch.where(_are_equal(c, d), _ALIKE, (c > d).to(torch.float64))
        found = torch.where(c.isnan() | d.isnan(), _ALIKE, found)
    else:
        if p.level > 0:  # these are logarithms
            gap = (math.log(alpha) + c) - (math.log(alpha - 1) + d)
        else:
            gap = alpha * c - (alpha - 1) * d
        found = torch.where(gap.isnan(), math.nan, (gap > 0).to(torch.float64))
    for mine, other in reversed(pairs):
        a, b = (torch.as_tensor(x, dtype=torch.float64) for x in (mine, other))
        found = torch.where(_are_equal(a, b), found, (a > b).to(torch.float64))
        found = torch.where(a.isnan() | b.isnan(), math.nan, found)
    return found


def _are_equal(a: Tensor, b: Tensor) -> Tensor:
    """Up to the rounding of the maps that they have gone through."""
    return torch.isclose(a, b, rtol=1e-12, atol=0.0)


def _unknown() -> NotImplementedError:
    return NotImplementedError(
        "Whether the integral of p^alpha q^(1 - alpha) is finite is not known: it is not declared "
        "how fast p and q fall at the ends of their supports. For an order below 1 it is always "
        "finite." + see("no-integral")
    )
