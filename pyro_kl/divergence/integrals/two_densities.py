"""Two univariate densities on the line where p's mass is known, and integrals over its panels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from pyro.distributions import ImproperUniform
from torch import Tensor
from torch.distributions import Distribution

from ...numerics.dtypes import in_float64
from ...registry.line import LARGEST, Point
from ...registry.reduction import canonicalise
from ...registry.shapes import broadcast_batch
from ...registry.tensors import is_foreign
from ...registry.user_classes import check_pointwise
from ...wrappers.transformed.distribution_line import Tail, Tails
from ...wrappers.transformed.finiteness_of_powers import Verdict, powers_are_finite
from ...wrappers.transformed.line_of import line_and_maps, line_of
from ...wrappers.transformed.transform_rules import image_of, preimage_of
from .mixture_line import line_of_mixture, places_of_components
from .panels import Peak, integrated
from .rows import as_declared, missing_rows
from .searched_line import searched_line

#: A function of the place on the line.
OfPlace = Callable[[Tensor], Tensor]
#: Where a log density is so many nats below its maximum, nothing is left of the density.
_NOTHING = 45.0
_GRID, _ZOOMS = 61, 12
#: From this log of a slope on, up and down, sums with it have lost too many digits.
_LARGEST_SLOPE = 1e10


class TwoDensities:
    """The log densities of p and q with respect to the place on p's line.

    Attributes:
        shape: the batch shape of both.
        same_support: the rows where the ends of both supports are equal.
        inside: the rows where p's support is inside of q's.
        around: the rows where q's support is inside of p's.
        apart: the rows where no point is inside of both supports.
        unknown: the rows with a parameter that is nan, or a density that is nan everywhere.
        is_opaque: whether no more is known of one of them than its `log_prob`.
    """

    def __init__(self, p: Distribution, q: Distribution, line: Any, maps: Any, other: Any) -> None:
        self.shape = broadcast_batch(p, q)
        self._line, self._maps, self._other = line, maps, other
        self._mass, self._own = line.mass(), line.tensors
        self._components = [
            x for distribution in (p, q) for x in places_of_components(distribution)
        ]
        self.centre, self.width = (
            x.detach().expand(self.shape) for x in self._mass.scale(*self._own)
        )
        self.is_opaque = line.is_opaque or other.is_opaque or is_foreign(maps)
        with torch.no_grad():
            self._set_ends()
            self.unknown = (missing_rows(p) | missing_rows(q)).expand(self.shape)
            if self.is_opaque:
                self._check_user_code()

    def _check_user_code(self) -> None:
        """Refuse densities that are no functions of a point; rows where one is nan are unknown."""
        steps = torch.tensor([-1.0, -0.3, 0.0, 0.3, 1.0], dtype=torch.float64)
        y = self.centre + self.width * steps.reshape(-1, *(1,) * len(self.shape))
        check_pointwise(lambda y: torch.stack(self(y)[:2]).sum(0), y.contiguous())
        self.unknown = self.unknown | torch.stack(self(y)[:2]).isnan().all(1).any(0)

    def _set_ends(self) -> None:
        image = image_of(self._maps, self._mass.at(self.centre.unsqueeze(0), *self._own))
        ends = [image.low, image.high, self._other.low, self._other.high]
        low, high, q_low, q_high = (
            torch.as_tensor(x, dtype=torch.float64).detach().reshape(-1, *self.shape)[0]
            if isinstance(x, Tensor) and x.dim() > len(self.shape)
            else torch.as_tensor(x, dtype=torch.float64).detach().expand(self.shape)
            for x in ends
        )
        self.same_support = (low == q_low) & (high == q_high)
        self.inside = (low >= q_low) & (high <= q_high)
        self.around = (low <= q_low) & (high >= q_high)
        self._all_inside = bool(self.inside.all())
        self._p_ends, self._q_ends = (low, high), (q_low, q_high)
        self._ends_differ = low != q_low, high != q_high
        left, right = torch.maximum(low, q_low), torch.minimum(high, q_high)
        self.apart = left >= right
        middle = torch.where(right.isinf(), left + 1.0, 0.5 * (left + right))
        middle = torch.where(left.isinf(), right - 1.0, middle)
        middle = torch.where(left.isinf() & right.isinf(), 0.0, middle)
        self._safe = self._place(middle)

    def _place(self, x: Tensor) -> Tensor:
        """The place of x on the line; p's centre if p does not reach it."""
        y = self._mass.place(preimage_of(self._maps, x), *self._own).detach()
        return torch.where(y.isfinite(), y, self.centre)

    def __call__(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log p and log q with respect to the place, and the logarithm of dx/dy.

        Args:
            y: places, nodes in front of the batch.
        """
        start = self._mass.at(y, *self._own)
        x = image_of(self._maps, start).x
        # where both supports have one end, x may round to it
        outside = self._ends_differ[0] & (x <= self._q_ends[0])
        outside = outside | (self._ends_differ[1] & (x >= self._q_ends[1]))
        point = image_of(
            self._maps, self._mass.at(torch.where(outside, self._safe, y), *self._own)
        )
        if not self._all_inside:  # a point knows its distances from ends further out only
            point = Point(point.x, point.log_slope, log_size=point.log_size)
        log_q = self._other.log_density(point, *self._other.tensors) + point.log_slope
        log_p = self._line.log_density(start, *self._own) + start.log_slope
        log_q = torch.where(outside, -math.inf, log_q)
        shape = y.shape
        return log_p.expand(shape), log_q.expand(shape), point.log_slope.expand(shape)

    def log_p(self, y: Tensor) -> Tensor:
        return self(y)[0]

    def log_q(self, y: Tensor) -> Tensor:
        return self(y)[1]

    def log_power(self, alpha: float) -> OfPlace:
        """Log of p^alpha q^(1 - alpha)."""

        def of_place(y: Tensor) -> Tensor:
            log_p, log_q, _ = self(y)
            if alpha == 0.0:
                return torch.where(torch.isneginf(log_p), -math.inf, log_q)
            gone = torch.isneginf(log_p) | torch.isneginf(log_q)
            p, q = torch.where(gone, 0.0, log_p), torch.where(gone, 0.0, log_q)
            return torch.where(gone, -math.inf, alpha * p + (1 - alpha) * q)

        return of_place

    @torch.no_grad()
    def powers_are_finite(self, alpha: float, rows: Tensor) -> Verdict:
        """Of some rows, those where the integral of p^alpha q^(1 - alpha) is finite; alpha > 1."""
        start = self._mass.at(self.centre, *self._own)
        return powers_are_finite(self._line, start, self._maps, self._other, alpha, rows)

    def kinks(self) -> list[Tensor]:
        """The places where a density may not be smooth, and the ends of q's support."""
        with torch.no_grad():
            points = [*self._line.breakpoints()] if not self._maps else []
            points = [*points, *self._other.breakpoints(), *self._q_ends, *self._components]
            found = [in_float64(x).detach().expand(self.shape) for x in points]
            return [self._place(torch.where(x.isfinite(), x, math.nan)) for x in found]

    def own_kinks(self) -> list[Tensor]:
        """The places where p's density is not smooth, with a graph."""
        if self._maps or not self._line.has_kinks:
            return []
        points = [in_float64(x).expand(self.shape) for x in self._line.breakpoints()]
        return [self._mass.place(x, *self._own).expand(self.shape) for x in points]

    def infinite_at_ends(self) -> tuple[Tensor, Tensor]:
        """Where p's density is infinite at an end inside of q's support, and q's in p's."""
        p, q = self._p_ends, self._q_ends
        own = None if self._maps else self._line.tails
        return self._is_infinite(own, p, q), self._is_infinite(self._other.tails, q, p)

    def _is_infinite(
        self, tails: Tails | None, ends: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]
    ) -> Tensor:
        if tails is None:
            return torch.zeros_like(self.apart)
        low, high = (torch.as_tensor(tail.index < 1.0) for tail in tails)
        return (low & (ends[0] > others[0])) | (high & (ends[1] < others[1]))

    def edges(self) -> list[Tensor]:
        """The places of q's ends inside of p's support, with a graph where q's density jumps."""
        found = []
        tails = self._other.tails or (Tail(1.0, 0.0), Tail(1.0, 0.0))
        ends = (self._other.low, self._other.high)
        for x, differs, tail in zip(ends, self._ends_differ, tails, strict=True):
            if not bool(differs.any()):
                continue
            end = torch.as_tensor(x, dtype=torch.float64).expand(self.shape)
            known = self._mass.place(preimage_of(self._maps, end), *self._own).detach()
            known = known.isfinite() & differs
            if not bool(known.any()):
                continue
            middle = image_of(self._maps, self._mass.at(self._safe, *self._own)).x.detach()
            safe = torch.where(known, end, middle)
            place = self._mass.place(preimage_of(self._maps, safe), *self._own)
            jumps = known & torch.as_tensor(tail.index <= 1.0)
            found.append(torch.where(jumps, place, place.detach()))
        return found

    def _q_scale(self) -> tuple[Tensor, Tensor]:
        """Centre and width of q on p's line, as far as p's line reaches there."""
        if self._other.mass is None:
            points = [in_float64(x) for x in self._other.breakpoints()]
            centre = self._place(points[0].expand(self.shape)) if points else self.centre
            return centre, self.width
        mass, tensors = self._other.mass(), self._other.tensors
        centre, width = mass.scale(*tensors)
        places = [
            self._place(mass.at(y, *tensors).x.expand(self.shape))
            for y in (centre, centre - width, centre + width)
        ]
        wide = (places[2] - places[1]).abs()
        return places[0], torch.where(wide > 0, wide, self.width)

    @torch.no_grad()
    def peak(self, log: OfPlace) -> Peak:
        """The peak of a log density that lies next to p, next to q, or between them."""
        centre, width = self._q_scale()
        column = (-1,) + (1,) * len(self.shape)
        steps = torch.linspace(-1, 1, _GRID, dtype=torch.float64).reshape(column)
        sizes = torch.sinh(16 * steps) / math.sinh(16) * 1e6
        between = self.centre + (centre - self.centre) * (0.5 + 0.5 * steps)
        places = [self.centre + self.width * sizes, centre + width * sizes, between]
        grid = torch.cat([x.expand(_GRID, *self.shape) for x in places])
        grid = self.within(grid).sort(0).values
        for _ in range(_ZOOMS):
            values = _number(log(grid))
            best = values.max(0, keepdim=True).indices
            last = grid.shape[0] - 1
            at = [(best + k).clamp(0, last) for k in (-1, 0, 1)]
            before, middle, after = (grid.gather(0, k).squeeze(0) for k in at)
            heights = [values.gather(0, k).squeeze(0) for k in at]
            flat = (heights[1] - torch.minimum(heights[0], heights[2])) < 0.05
            if bool(flat.all()):
                break
            half = torch.maximum(after - middle, middle - before)
            grid = self.within(middle + half * steps)
        top = heights[1]  # next to an end, x of one place may round in another way than of many
        scale = torch.minimum(self.width, width)
        powers = torch.arange(-40, 61, dtype=torch.float64).reshape(column)
        outward = scale * torch.exp2(powers)
        drops = [top - _number(log(self.within(middle + k * outward))) for k in (-1, 1)]
        narrow = torch.minimum(*((d < 0.5).sum(0) for d in drops)).clamp(0, len(outward) - 1)
        ends = []
        for side, drop in zip((-1, 1), drops, strict=True):
            ranks = torch.arange(len(outward)).reshape(column)
            furthest = torch.where(drop < _NOTHING, ranks, -1).max(0, keepdim=True).values + 1
            far = outward.gather(0, furthest.clamp(max=len(outward) - 1)).squeeze(0)
            ends.append(self.within(middle + side * far))
        width = outward.gather(0, narrow.unsqueeze(0)).squeeze(0)
        return Peak(middle, width, ends[0], ends[1], top)

    @torch.no_grad()
    def missing_mass(self, kinks: Sequence[Tensor]) -> Tensor:
        """How far p's own integral is off 1: for rounding in its density, as of log gamma."""
        found = integrated(lambda y: [torch.exp(self.log_p(y))], [self.peak(self.log_p)], kinks)
        return (found.value[0] - 1).abs()

    def within(self, y: Tensor) -> Tensor:
        """Places where x does not overflow."""
        return y if self._mass.is_whole_line else y.clamp(*self._limits)

    @cached_property
    def _limits(self) -> tuple[Tensor, Tensor]:
        return self._limit(-1), self._limit(1)

    @torch.no_grad()
    def _limit(self, side: int) -> Tensor:
        """How far out x is finite and keeps its digits."""
        near, far = self.centre, torch.full_like(self.centre, side * LARGEST)
        if bool(self._is_finite(far).all()):
            return far
        for _ in range(50):
            middle = 0.5 * (near + far)
            finite = self._is_finite(middle)
            near, far = torch.where(finite, middle, near), torch.where(finite, far, middle)
        return near

    def _is_finite(self, y: Tensor) -> Tensor:
        image = image_of(self._maps, self._mass.at(y.unsqueeze(0), *self._own))
        # the slopes of maps that undo each other cancel, and lose as many digits as they are large
        has_digits = image.log_slope.abs() < _LARGEST_SLOPE
        return (image.x.isfinite() & has_digits)[0].expand(self.shape)


def two_densities(p: Distribution, q: Distribution) -> TwoDensities | None:
    """Both densities on p's line; None if too little is known of one of them."""
    if p.event_shape or q.event_shape or not broadcast_batch(p, q).numel():
        return None  # of an empty batch: see `of_empty_batch`
    p, q = (as_declared(canonicalise(x)) for x in (p, q))
    if isinstance(q, ImproperUniform):
        return None  # its density has no integral
    other = line_of(q)
    if other is None:
        return None
    found = line_and_maps(p) or line_of_mixture(p)
    if found is not None:
        return TwoDensities(p, q, *found, other)
    searched = searched_line(p)
    return None if searched is None else TwoDensities(p, q, searched, [], other)


def _number(log: Tensor) -> Tensor:
    return log.nan_to_num(nan=-math.inf, posinf=-math.inf)
