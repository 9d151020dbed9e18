"""A univariate family on the real line: the map to its support, its centre, width and tails."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from ..numerics.autograd.custom import with_partials
from ..numerics.special.logarithms import log1mexp, logaddexp

#: A number, or a function of a family's parameters.
Number: TypeAlias = "float | Callable[..., Tensor]"
#: exp(y) and sinh(y) are finite for |y| up to this number.
LARGEST = 690.0
#: exp of a number above this one overflows.
_OVERFLOW = 709.0


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)); torch.nn.functional.softplus returns x above 20, without exp(-x).

    A form with |x| would have a wrong second derivative for a node at 0.
    """
    return -torch.nn.functional.logsigmoid(-x)


@dataclass(frozen=True)
class Point:
    """A point of a support, with its distances from the ends, which keep their digits.

    Args:
        x: the point; it may have rounded to an end, or to inf.
        log_slope: log dx/dy, y being the place on the line.
        low: the lower end.
        log_above: log(x - low), if the end is finite.
        high: the upper end.
        log_below: log(high - x), if the end is finite (elements may be inf).
        log_size: log |x|, if x may overflow; accurate far out, where a loc is negligible.
    """

    x: Tensor
    log_slope: Tensor
    low: Tensor | float = -math.inf
    log_above: Tensor | None = None
    high: Tensor | float = math.inf
    log_below: Tensor | None = None
    log_size: Tensor | None = None

    def log_over(self, end: Tensor | float) -> Tensor:
        """log(x - end), for a number at or below the lower end."""
        if self.log_above is None:
            return self._log_of(self.x - end)
        return _log_further(self.log_above, self.low - end)

    def log_under(self, end: Tensor | float) -> Tensor:
        """log(end - x), for a number at or above the upper end."""
        if self.log_below is None:
            endless = torch.as_tensor(end) == math.inf  # if x has overflowed, inf - inf is nan
            return self._log_of(torch.where(endless, math.inf, end - self.x))
        return _log_further(self.log_below, end - self.high)

    def _log_of(self, distance: Tensor) -> Tensor:
        """The logarithm of a distance from x, also where x has overflowed."""
        if self.log_size is None:
            return torch.log(distance)
        far = distance == math.inf
        return torch.where(far, self.log_size, torch.log(torch.where(far, 1.0, distance)))

    def log_unit(self) -> tuple[Tensor, Tensor]:
        """Log x and log(1 - x), inside of the unit interval.

        If the ends of the support are not those of the interval: the larger from the smaller.
        """
        ends = self.low, self.high
        if all(isinstance(end, float) for end in ends) and ends == (0.0, 1.0):
            if self.log_above is not None and self.log_below is not None:
                return self.log_above, self.log_below
        log_x, log_rest = self.log_over(0.0), self.log_under(1.0)
        upper = log_rest < log_x
        return (
            torch.where(upper, log1mexp(torch.where(upper, log_rest, -1.0)), log_x),
            torch.where(upper, log_rest, log1mexp(torch.where(upper, -1.0, log_x))),
        )

    def log1p_square(self, loc: Tensor, scale: Tensor) -> Tensor:
        """log(1 + ((x - loc) / scale)^2), also where the square or x itself overflows."""
        if self.log_size is None:
            return _log1p_square(self.x - loc, scale)
        over = self.log_size > LARGEST  # this far out, loc is negligible
        inside = _log1p_square(torch.where(over, 0.0, self.x - loc), scale)
        return torch.where(over, softplus(2 * (self.log_size - torch.log(scale))), inside)


#: The square of a number up to this one is finite.
_LARGE = 1e100


def _log1p_square_slopes(distance: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    far = (distance / scale).abs() > _LARGE
    z = torch.where(far, 0.0, distance) / scale
    by_distance = torch.where(
        far, 2 / torch.where(far, distance, 1.0), 2 * z / (1 + z * z) / scale
    )
    return by_distance, torch.where(far, -2 / scale, -by_distance * z)


@with_partials(_log1p_square_slopes)
def _log1p_square(distance: Tensor, scale: Tensor) -> Tensor:
    """log(1 + (distance / scale)^2), also where the square overflows."""
    far = (distance / scale).abs() > _LARGE
    z = torch.where(far, 0.0, distance) / scale
    log_distance = torch.log(torch.where(far, distance, 1.0).abs())
    return torch.where(far, 2 * (log_distance - torch.log(scale)), torch.log1p(z * z))


def _log_further(log_distance: Tensor, gap: Tensor | float) -> Tensor:
    """log(distance + gap) for gap >= 0."""
    if isinstance(gap, int | float):
        return (
            log_distance
            if gap == 0
            else logaddexp(log_distance, torch.full_like(log_distance, math.log(gap)))
        )
    positive = (gap > 0) & (gap < math.inf)
    log_gap = torch.log(torch.where(positive, gap, 1.0))
    far = logaddexp(log_distance, log_gap)
    return torch.where(positive, far, torch.where(gap <= 0, log_distance, math.inf))


# --- maps from the line -------------------------------------------------------------------------


def from_line(y: Tensor, **_: Tensor) -> Point:
    """The line itself."""
    return Point(y, torch.zeros_like(y))


def exp_or_inf(log_x: Tensor) -> Tensor:
    """Exp, with a slope of 0 where it overflows: that of exp is inf, and 0 times that is nan."""
    inside = log_x < _OVERFLOW
    return torch.where(inside, torch.exp(torch.where(inside, log_x, 0.0)), math.inf)


def half_line(y: Tensor, **_: Tensor) -> Point:
    """(0, inf), by x = exp(y)."""
    return Point(exp_or_inf(y), y, low=0.0, log_above=y, log_size=y)


def interval(y: Tensor, low: Tensor | float = 0.0, high: Tensor | float = 1.0) -> Point:
    """(low, high), by the logistic function."""
    width = high - low
    log_width = math.log(width) if isinstance(width, int | float) else torch.log(width)
    up, down = torch.nn.functional.logsigmoid(y), torch.nn.functional.logsigmoid(-y)
    return Point(
        low + width * torch.sigmoid(y),
        log_width + up + down,
        low,
        log_width + up,
        high,
        log_width + down,
    )


def sinh_line(y: Tensor, loc: Tensor, scale: Tensor) -> Point:
    """The line, by x = loc + scale sinh(y): power tails become exponentials."""
    log_size = torch.log(scale) + logaddexp(y, -y) - math.log(2)
    inside = log_size < LARGEST
    x = loc + scale * torch.sinh(torch.where(inside, y, 0.0))
    return Point(torch.where(inside, x, torch.sign(y) * math.inf), log_size, log_size=log_size)


# --- the declaration ----------------------------------------------------------------------------


class Distance(NamedTuple):
    """A distance from a place c that grows like |x|, and its mean under p.

    Args:
        centre: c.
        radius: r, if it is sqrt(r^2 + (x - c)^2); None if c is p's lower end and it is x - c.
        mean: its expectation.
    """

    centre: Tensor
    radius: Tensor | None
    mean: Tensor


@dataclass(frozen=True, eq=False)
class Line:
    """A univariate continuous distribution on the real line, for integrals over it and against it.

    All functions take the family's parameters by keyword. The tail index of p at an end is a if
    the mass within a distance d of a finite end is of the order of d^a, or that beyond a distance
    d of order d^-a where the end is at infinity; inf if the tail is lighter than any power. The
    growth of q at an end is k if -log q is of the order of d^-k or d^k; 0 if it is logarithmic.
    The KL is finite where index > growth at both ends.

    Args:
        log_density: `log_density(point, **parameters)`, the logarithm of the density at a point.
        at: `at(y, **parameters)`, the point where y on the line lies: smooth, increasing, and
            such that the distribution's tails are exponential there or lighter.
        place: `place(x, **parameters)`, the inverse of `at`.
        centre: where the mass is on the line.
        width: how wide it is there.
        reach: how many widths below and above the centre the mass of 1 - 1e-16 lies.
        standard: parameters, if all distributions of the family are shifted and stretched copies
            of one distribution on the line, by centre and width: those of centre 0 and width 1.
        index: tail indices at the lower and at the upper end.
        growth: growth at the lower and at the upper end.
        rate: of an exponential tail at infinity, lower and upper; inf if lighter than any. It is
            also the slope of -log q there.
        exponential: -log q grows like exp(exponential |x|), lower and upper.
        decay: c, if the density falls like exp(-c t^growth) with the distance t, or 1 over the
            distance from a finite end; of exp(-c (log t)^2) if the growth is 0; log c of
            exp(-c exp(exponential t)). By default the `rate`, where the growth is 1.
        log_tail: whether `at` has taken the logarithm of an exponential tail once more.
        tilt: if all powers of x have a mean but the mass of p x^k wanders off with k, how far
            for k = 1, in widths.
        peaked: whether the nodes must crowd at the centre.
        distance: of a distribution with a power tail at infinity: a distance whose mean is known.
        bend: where on the line its logarithm bends, and within what distance, if that is not at
            the centre and within the width: of a distribution with two tails of very different
            length.
    """

    log_density: Callable[..., Tensor]
    at: Callable[..., Point]
    place: Callable[..., Tensor]
    centre: Callable[..., Tensor]
    width: Callable[..., Tensor]
    reach: tuple[float, float] = (40.0, 40.0)
    standard: Mapping[str, float] | None = None
    index: tuple[Number, Number] = (math.inf, math.inf)
    growth: tuple[Number, Number] = (0.0, 0.0)
    rate: tuple[Number, Number] = (math.inf, math.inf)
    exponential: tuple[Number, Number] = (0.0, 0.0)
    decay: tuple[Number | None, Number | None] = (None, None)
    log_tail: bool = False
    peaked: bool = False
    tilt: Callable[..., Tensor] | None = None
    distance: Callable[..., Distance] | None = None
    bend: Callable[..., tuple[Tensor, Tensor]] | None = None

    def __post_init__(self) -> None:
        known = tuple(
            rate if c is None and growth == 1.0 and callable(rate) else c
            for c, growth, rate in zip(self.decay, self.growth, self.rate, strict=True)
        )
        object.__setattr__(self, "decay", known)

    def bends(self, **parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Where on the line its logarithm bends, and within what distance."""
        if self.bend is not None:
            return self.bend(**parameters)
        return self.centre(**parameters), self.width(**parameters)


def location_scale_line(log_density: Callable[..., Tensor], **tails: Any) -> Line:
    """The line of a family on the real line that loc and scale shift and stretch.

    Args:
        log_density: `log_density(point, loc, scale)`, the logarithm of the density.
        tails: `reach`, `index`, `growth` and other arguments of `Line`.
    """
    return Line(
        log_density,
        at=from_line,
        place=lambda x, **_: x,
        centre=lambda loc, scale: loc,
        width=lambda loc, scale: scale,
        standard={"loc": 0.0, "scale": 1.0},
        **tails,
    )


def positive_line(log_density: Callable[..., Tensor], **options: Any) -> Line:
    """The line of a family on (0, inf), by x = exp(y).

    Args:
        log_density: `log_density(point, **parameters)`, the logarithm of the density at x. Use
            `point.log_over(0.0)` for log x.
        options: `centre` and `width`, functions of the parameters: where the mass is in log x, and
            how wide. Then `reach`, `index`, `growth` and other arguments of `Line`.
    """
    return Line(log_density, at=half_line, place=lambda x, **_: torch.log(x), **options)


def scale_line(log_density: Callable[..., Tensor], **tails: Any) -> Line:
    """The line of a family on (0, inf) that scale stretches.

    Args:
        log_density: `log_density(point, scale)`, the logarithm of the density at x. Use
            `point.log_over(0.0)` for log x.
        tails: `reach`, `index`, `growth` and other arguments of `Line`.
    """
    return positive_line(
        log_density,
        centre=lambda scale: torch.log(scale),
        width=lambda scale: torch.ones_like(scale),
        standard={"scale": 1.0},
        **tails,
    )


def unit_line(log_density: Callable[..., Tensor], **options: Any) -> Line:
    """The line of a family on (0, 1), by the logistic function.

    Args:
        log_density: `log_density(point, **parameters)`, the logarithm of the density at x. Use
            `point.log_over(0.0)` for log x and `point.log_under(1.0)` for log(1 - x).
        options: `centre` and `width`, functions of the parameters: where the mass is in logit x,
            and how wide. Then `reach`, `index`, `growth` and other arguments of `Line`.
    """
    return Line(
        log_density,
        at=lambda y, **_: interval(y),
        place=lambda x, **_: torch.logit(x),
        **options,
    )
