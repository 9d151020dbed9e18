"""What an integral over the line needs of a distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions.transforms import Transform

from ...numerics.dtypes import Parameters
from ...registry.line import Line, Number, Point

End = Tensor | float


@dataclass(frozen=True)
class Tail:
    """How fast a density falls with t at one end of its support.

    t is the distance from the middle, or 1 over that from a finite end.

    Args:
        index: a, of a mass t^-a beyond t; inf if it is lighter than any power.
        growth: g, of exp(-c t^g); inf of a double exponential; 0 of a power or, if the index is
            inf, of exp(-c (log t)^2).
        rate: c, or c of exp(-exp(c t)); nan if it is not known.
        decay: c of exp(-c t^g) and of exp(-c (log t)^2), log c of exp(-c exp(rate t)); nan if it
            is not known.
    """

    index: Tensor | float
    growth: Tensor | float
    rate: Tensor | float = math.nan
    decay: Tensor | float = math.nan


Tails = tuple[Tail, Tail]


@dataclass(frozen=True)
class Mass:
    """Where the mass of a distribution lies on its line.

    Args:
        at: `at(y, *tensors)`, the point where y of the line lies.
        place: `place(x, *tensors)`, its inverse.
        scale: `scale(*tensors)`, centre and width of the mass.
        window: how many widths below and above the centre all of the mass lies.
        is_peaked: whether nodes must crowd at the centre.
        is_whole_line: whether x is y itself.
        standard: `standard(z)`, the log density of z = (y - centre) / width, if it is the same
            for all distributions of the family; None if it is not.
    """

    at: Callable[..., Point]
    place: Callable[..., Tensor]
    scale: Callable[..., tuple[Tensor, Tensor]]
    window: tuple[Tensor | float, Tensor | float]
    is_peaked: bool
    is_whole_line: bool = False
    standard: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class DistributionLine:
    """A univariate distribution on its line.

    Args:
        log_density: `log_density(point, *tensors)`, elementwise.
        tensors: what the density depends on, in float64; each broadcasts to the batch shape.
        low: the lower end of the support.
        high: the upper end.
        breakpoints: computes the points x where the density has kinks, or else its mass.
        has_kinks: whether it has kinks.
        tails: lower and upper; None if they are not known, but perhaps the base's are.
        mass: computes where its mass lies; None if that is not known.
        base: of an image, the base's line.
        back: of an image, the maps from the image to the base.
        is_opaque: whether no more is known than `log_prob`: the density depends on tensors that
            are not listed, and may be 0 in floating point inside of the support.
        key: equal for densities that differ in their tensors alone; None if that is not known.
    """

    log_density: Callable[..., Tensor]
    tensors: tuple[Tensor, ...]
    low: End
    high: End
    breakpoints: Callable[[], tuple[Tensor, ...]] = tuple
    has_kinks: bool = False
    tails: Tails | None = None
    mass: Callable[[], Mass] | None = None
    base: DistributionLine | None = None
    back: tuple[Transform, ...] = ()
    is_opaque: bool = False
    key: Hashable = None


def tail_of(line: Line, end: int, values: Parameters) -> Tail:
    """The tail at the lower (0) or at the upper (1) end."""
    index, declared = _number(line.index[end], values), line.decay[end]
    decay = math.nan if declared is None else _number(declared, values)
    if line.exponential[end] != 0.0:
        return Tail(index, math.inf, _number(line.exponential[end], values), decay)
    rate = _number(line.rate[end], values)
    known = isinstance(rate, Tensor) or math.isfinite(rate)
    return Tail(index, _number(line.growth[end], values), rate if known else math.nan, decay)


def _number(x: Number, values: Parameters) -> Tensor | float:
    """A number, which may be declared as a function of the parameters."""
    return x(**values).detach() if callable(x) else x


def heavier(a: Tail, b: Tail) -> Tail:
    """The tail of a sum of two densities, at an end where they have these tails."""
    growth, rate = _smaller(a.growth, b.growth), _smaller(a.rate, b.rate)
    first, second = _tensors(a.decay, b.decay)
    slower = torch.where(torch.as_tensor(a.growth == growth), first, second)
    same = torch.as_tensor(a.growth == b.growth)
    decay = torch.where(same, torch.minimum(*torch.broadcast_tensors(first, second)), slower)
    return Tail(_smaller(a.index, b.index), growth, rate, decay)


def _tensors(*numbers: Tensor | float) -> list[Tensor]:
    return [torch.as_tensor(x, dtype=torch.float64) for x in numbers]


def _smaller(a: Tensor | float, b: Tensor | float) -> Tensor | float:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return torch.minimum(*torch.broadcast_tensors(torch.as_tensor(a), torch.as_tensor(b)))
    return math.nan if math.isnan(a + b) else min(a, b)
