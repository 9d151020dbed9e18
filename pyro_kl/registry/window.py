"""Where the mass of p lies on its line, and where an integral against q needs more nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..numerics.dtypes import Parameters
from .family import Family
from .finiteness import TailStretch, number
from .line import LARGEST, Line, from_line, half_line
from .slow_tails import SlowTails, is_slow


@dataclass(frozen=True)
class Window:
    """The part of p's line that is integrated over, in widths from the centre.

    Args:
        centre: where p's mass is on the line.
        width: how wide it is there.
        low: how far the window goes below the centre.
        high: how far it goes above.
        subtracted_tail: 1 in the rows where the slow tail is taken out of the integrand and its
            mean is added; None if the pair has no such tail.
        beyond_floats: where a large part of the integral lies where x overflows; None if nowhere.
    """

    centre: Tensor
    width: Tensor
    low: Tensor | float
    high: Tensor | float
    subtracted_tail: Tensor | None
    beyond_floats: Tensor | None


def window_of(
    line: Line,
    q_line: Line,
    a: Parameters,
    b: Parameters,
    tail_stretch: TailStretch,
    tails: SlowTails | None,
) -> Window:
    """The window of p, wide enough for what q's log density adds to it; parameters detached."""
    centre, width = line.centre(**a), line.width(**a)
    subtracted: Tensor | None = None
    if tails is not None:
        slow = is_slow(tail_stretch)
        subtracted = slow.to(centre)
        stretched = (torch.as_tensor(x, dtype=centre.dtype) for x in tail_stretch)
        low, high = (torch.where(slow, 1.0, x.to(centre.device)) for x in stretched)
        tail_stretch = low, high
    ends: list[Tensor | float] = []
    beyond: Tensor | None = None
    for i, (side, reach, wider) in enumerate(zip((-1, 1), line.reach, tail_stretch, strict=True)):
        tilt: Tensor | float = 0.0
        if q_line.growth[i] != 0.0 or q_line.exponential[i] != 0.0:
            tilt = _tilt(line, q_line, a, b, centre, width, i)
        end: Tensor | float = reach + tilt
        if isinstance(wider, Tensor):
            end = end + torch.log(wider) if line.log_tail else end * wider
        if isinstance(end, Tensor) and not line.log_tail and _grows(line, a, centre):
            # not so far that x leaves the floats, where the map grows like an exponential
            room = ((LARGEST - side * centre) / width).clamp(min=1.0)
            end = torch.minimum(end, room)
            if isinstance(tilt, Tensor):
                # that cuts off the top of p x^k, or half of p's reach around it
                cut = room < tilt + 0.5 * reach
                beyond = cut if beyond is None else beyond | cut
        ends.append(end)
    return Window(centre, width, ends[0], ends[1], subtracted, beyond)


def _tilt(
    line: Line,
    q_line: Line,
    a: Parameters,
    b: Parameters,
    centre: Tensor,
    width: Tensor,
    i: int,
) -> Tensor | float:
    """How much further an end has to be for the powers of x and the exponents in log q."""
    growth, side = q_line.growth[i], (-1, 1)[i]
    tilt: Tensor | float = 0.0
    if line.tilt is not None and growth != 0.0:
        unit = line.tilt(**a)
        tilt = unit * number(growth, b, unit)
    if q_line.exponential[i] != 0.0:
        end = line.at(centre + 20 * side * line.reach[i] * width, **a)
        has_end = (end.log_above if side < 0 else end.log_below) is not None
        if has_end:  # log q is finite there, but may be large
            size = torch.log1p(q_line.log_density(end, **b).abs().clamp(max=1e300))
            tilt = tilt + size * line.reach[i] / 40.0
    return tilt


def _grows(line: Line, a: Parameters, centre: Tensor) -> bool:
    """Whether the map from the line grows like an exponential."""
    return line.at is not from_line and line.at(centre, **a).log_below is None


def distance_from_zero(
    line: Line, q_line: Line, a: Parameters, b: Parameters, centre: Tensor, width: Tensor
) -> Tensor:
    """In p's widths, of its centre: by so much x and y lose relative digits next to it.

    Where p and q live on the same half-line or unit interval, both are functions of x's distances
    from the ends, which keep their digits. Else the width in x is that between a width below and
    above the centre, and no less than one rounding of x: next to an end of an interval x stands
    still where y goes on.
    """
    on_line = centre.abs() / width
    if line.at is q_line.at and line.at is half_line:
        return on_line
    points = [line.at(y, **a) for y in (centre, centre - width, centre + width)]
    other = q_line.at(q_line.centre(**b), **b)
    ends = [(point.low, point.high) for point in (points[0], other)]
    if not any(isinstance(end, Tensor) for each in ends for end in each):
        if ends[0] == ends[1] and ends[0][0] != -math.inf:
            return on_line
    x, below, above = (point.x for point in points)
    rounding = torch.finfo(x.dtype).eps * x.abs()
    on_support = (x.abs() / (0.5 * (above - below).abs()).maximum(rounding)).nan_to_num(0.0)
    return on_support + on_line


def bends(
    line: Line,
    q_line: Line,
    a: Parameters,
    b: Parameters,
    window: Window,
    shape: torch.Size,
) -> tuple[Tensor, Callable[[], list[Tensor]]]:
    """1 where log q or log p bends within a few nodes, else 0; and the places, if needed."""
    centre, width = window.centre, window.width
    middle, half = q_line.bends(**b)
    middle = middle.expand(shape)
    if q_line.at is line.at and line.at in (from_line, half_line):  # one line for both
        at, step = (middle - centre) / width, half / width
        below, above = at - step, at + step
        nearest = step + 0.0 * at  # nan where q bends infinitely far away
    else:
        y = torch.stack((middle - half, middle, middle + half))
        below, at, above = (line.place(q_line.at(y, **b).x, **a) - centre) / width
        nearest = torch.fmin(above - at, at - below)
    # steps grow outwards; nan where an end of q is outside of p's support
    narrow = nearest < 0.5 * torch.sqrt(1 + at**2)
    if line.at is not from_line:  # the map to p's support bends too, within 1
        narrow = narrow | (width > 2.0)
    own: list[Tensor] = []
    if line.bend is not None:
        middle, half = line.bend(**a)
        own = [((middle - centre) / width).expand(shape)]
        narrow = narrow | (half < 0.5 * width * torch.sqrt(1 + own[0] ** 2))

    def places() -> list[Tensor]:
        place = at
        for other in (above, below, -centre / width):
            place = torch.where(torch.isfinite(place), place, other)
        return [place, *own]

    return narrow.to(centre.dtype), places


def kinks_of(
    q: Family, line: Line, a: Parameters, b: Parameters, centre: Tensor, width: Tensor
) -> Sequence[tuple[Tensor, Tensor]]:
    """Where q's kinks lie on p's line, in p's scale, and whether they do; with a graph."""
    found = []
    for x in q.kinks(**b) if q.kinks else ():
        inside = torch.isfinite(line.place(x, **a).detach())
        middle = line.at(line.centre(**a), **a).x.detach()
        y = line.place(torch.where(inside, x, middle), **a)
        found.append(((y - centre) / width, inside))
    return found
