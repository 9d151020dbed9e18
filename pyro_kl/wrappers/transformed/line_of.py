"""The log density of q as a function of its tensors, for an integral over p's line."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import torch
from pyro.distributions import (
    Delta,
    FoldedDistribution,
    ImproperUniform,
    Stable,
    TruncatedPolyaGamma,
)
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily
from torch.distributions.transforms import Transform

from ...numerics.dtypes import Parameters, in_float64
from ...numerics.special.logarithms import HALF_LOG_TAU, logaddexp
from ...registry.family import end_at
from ...registry.line import Line, Number, Point
from ...registry.reduction import canonicalise
from ...registry.register import family_of
from ...registry.tensors import is_foreign, made_of, tensors_in
from ...registry.user_classes import callable_copy, called
from ..circle import period_of
from .closed_images import class_of
from .maps import mapped_support, one_to_one, plain_maps
from .rules import base_and_transforms
from .supports import bounds
from .transform_rules import image_of, is_univariate

Density = Callable[..., Tensor]


@dataclass(frozen=True)
class Tail:
    """How fast a density falls with t at one end of its support.

    t is the distance from the middle, or 1 over that from a finite end.

    Args:
        index: a, of a mass t^-a beyond t; inf if it is lighter than any power.
        growth: g, of exp(-c t^g); inf of a double exponential; 0 of a power or, if the index is
            inf, of exp(-c (log t)^2).
        rate: c, or what it is of exp(-exp(c t)); nan if it is not known.
    """

    index: Tensor | float
    growth: Tensor | float
    rate: Tensor | float = math.nan


@dataclass(frozen=True)
class View:
    """A univariate distribution, seen from an integral.

    Args:
        log_density: `log_density(point, *tensors)`, elementwise.
        tensors: what it depends on, in float64; each broadcasts to the batch shape.
        low: the lower end of the support.
        high: the upper end.
        places: points x where the density has a kink or most of its mass.
        kinked: whether it has kinks.
        tails: lower and upper; None if they are not known, but perhaps the base's are.
        base: if it is an image, the base's view.
        back: the maps from the image to the base.
        closed: whether the distribution says no more of itself than `log_prob`: the density keeps
            its parameters to itself, and may be 0 in floating point inside of the support.
        key: what the log density is but for the tensors, if all of a kind have one; else None.
    """

    log_density: Density
    tensors: tuple[Tensor, ...]
    low: Tensor | float
    high: Tensor | float
    places: tuple[Tensor, ...] = ()
    kinked: bool = False
    tails: tuple[Tail, Tail] | None = None
    base: View | None = None
    back: tuple[Transform, ...] = ()
    closed: bool = False
    key: Hashable = None


def view_of(distribution: Distribution) -> View | None:
    """How to integrate against a distribution; None if it says too little of itself."""
    distribution = canonicalise(distribution)
    if distribution.event_shape or isinstance(
        distribution, Delta | Stable
    ):  # Stable's log_prob is wrong far out
        return None
    if isinstance(distribution, FoldedDistribution):
        return _folded(distribution)
    if is_foreign(distribution):
        return _by_log_prob(distribution)
    if isinstance(distribution, MixtureSameFamily):
        return _mixture(distribution)
    if isinstance(distribution, ImproperUniform):
        ends = bounds(distribution.support)
        return None if ends is None else View(lambda point: torch.zeros_like(point.x), (), *ends)
    if isinstance(distribution, TruncatedPolyaGamma):
        return _polya_gamma(distribution)
    return _declared(distribution) or _mapped(distribution) or _by_log_prob(distribution)


def _declared(distribution: Distribution) -> View | None:
    family = family_of(class_of(distribution))
    if family is None or family.line is None or family.distribution is not class_of(distribution):
        return None
    line = family.line
    values = {name: in_float64(x) for name, x in family.of(distribution).items()}
    names = tuple(values)

    def log_density(point: Point, *tensors: Tensor) -> Tensor:
        return line.log_density(point, **dict(zip(names, tensors, strict=True)))

    kinks = tuple(family.kinks(**values)) if family.kinks else ()
    centre = line.at(line.centre(**values), **values).x
    places = tuple(torch.as_tensor(x) for x in kinks) or (centre.detach(),)
    support = family.support
    low, high = (end_at(end, values) for end in (support.low, support.high))
    if support.period is not None:  # the density of angles goes round
        low, high = -math.inf, math.inf
    tails = tail_of(line, 0, values), tail_of(line, 1, values)
    tensors, key = tuple(values.values()), (line, names)
    return View(log_density, tensors, low, high, places, bool(kinks), tails, key=key)


def tail_of(line: Line, end: int, values: Parameters) -> Tail:
    """At the lower or at the upper end."""
    index = number(line.index[end], values)
    if line.exponential[end] != 0.0:
        return Tail(index, math.inf, number(line.exponential[end], values))
    rate = number(line.rate[end], values)
    known = isinstance(rate, Tensor) or math.isfinite(rate)
    return Tail(index, number(line.growth[end], values), rate if known else math.nan)


def number(x: Number, values: Parameters) -> Tensor | float:
    """A number, or what the function of the parameters says."""
    return x(**values).detach() if callable(x) else x


def _folded(distribution: FoldedDistribution) -> View | None:
    """The density at x plus that at -x."""
    base = view_of(distribution.base_dist)
    if base is None or period_of(distribution.base_dist) is not None:
        return None

    def log_density(point: Point, *tensors: Tensor) -> Tensor:
        mirrored = Point(-point.x, point.log_slope)
        straight = Point(point.x, point.log_slope)
        return logaddexp(
            base.log_density(straight, *tensors), base.log_density(mirrored, *tensors)
        )

    places = tuple(x.abs() for x in base.places)
    tails = base.tails and (Tail(1.0, 0.0), heavier(*base.tails))
    return View(
        log_density, base.tensors, 0.0, math.inf, places, base.kinked, tails, closed=base.closed
    )


def heavier(a: Tail, b: Tail) -> Tail:
    """What is left of two tails at one end."""
    return Tail(_smaller(a.index, b.index), _smaller(a.growth, b.growth), _smaller(a.rate, b.rate))


def _smaller(a: Tensor | float, b: Tensor | float) -> Tensor | float:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return torch.minimum(*torch.broadcast_tensors(torch.as_tensor(a), torch.as_tensor(b)))
    return math.nan if math.isnan(a + b) else min(a, b)


def _mixture(distribution: MixtureSameFamily) -> View | None:
    """The components' densities, weighted; each is seen by itself."""
    whole = view_of(distribution.component_distribution)
    if whole is None:
        return None
    count, size = distribution.mixture_distribution.logits.shape[-1], len(whole.tensors)
    logits = torch.log_softmax(in_float64(distribution.mixture_distribution.logits), -1)
    shape = distribution.component_distribution.batch_shape
    apart = [x.expand(shape).unbind(-1) for x in whole.tensors]
    tensors = [*logits.unbind(-1), *(part[k] for k in range(count) for part in apart)]

    def log_density(point: Point, *tensors: Tensor) -> Tensor:
        weights, rest = tensors[:count], tensors[count:]
        each = [
            weights[k] + whole.log_density(point, *rest[k * size : (k + 1) * size])
            for k in range(count)
        ]
        return torch.logsumexp(torch.stack(torch.broadcast_tensors(*each)), 0)

    def outermost(end: Tensor | float, choose: Callable[..., Tensor]) -> Tensor | float:
        return choose(end.expand(shape), -1) if isinstance(end, Tensor) else end

    places = tuple(x.expand(shape)[..., k] for x in whole.places for k in range(min(count, 8)))
    low, high = outermost(whole.low, torch.amin), outermost(whole.high, torch.amax)

    def slowest(tail: Tail) -> Tail:
        return Tail(*(outermost(x, torch.amin) for x in (tail.index, tail.growth, tail.rate)))

    tails = whole.tails and (slowest(whole.tails[0]), slowest(whole.tails[1]))
    return View(log_density, tuple(tensors), low, high, places, whole.kinked, tails)


def _mapped(distribution: Distribution) -> View | None:
    """The base, seen from where a point comes from."""
    base, maps = base_and_transforms(distribution)
    if not maps or not all(is_univariate(t) for t in maps) or not one_to_one(maps, base.support):
        return None
    view = view_of(base)
    if view is None or view.closed:
        return None
    back = plain_maps([t.inv for t in reversed(maps)])
    given = [in_float64(x) for x in tensors_in(back)]
    count = len(given)

    def log_density(point: Point, *tensors: Tensor) -> Tensor:
        start = replace(point, log_slope=torch.zeros_like(point.x))
        moved = image_of(made_of(back, iter(tensors[:count])), start)
        return view.log_density(moved, *tensors[count:]) + moved.log_slope

    places = [in_float64(x) for x in view.places]
    for transform in maps:
        places = [transform(x) for x in places]
    somewhere = places[0].detach() if places else torch.zeros((), dtype=torch.float64)
    image = image_of(maps, Point(somewhere, somewhere, low=view.low, high=view.high))
    tensors = (*given, *view.tensors)
    return View(
        log_density, tensors, image.low, image.high, tuple(places), view.kinked,
        base=view, back=tuple(made_of(back, iter(given))),
    )  # fmt: skip


def _by_log_prob(distribution: Distribution) -> View | None:
    """Any other continuous distribution, by its own log density at x."""
    try:
        support = mapped_support(distribution)
    except NotImplementedError:
        return None
    ends = None if support is None or support.is_discrete else bounds(support)
    if ends is None or class_of(distribution).log_prob is Distribution.log_prob:
        return None
    if (
        period_of(base_and_transforms(distribution)[0]) is not None
    ):  # torch takes the density at images of any angle
        return None
    distribution = callable_copy(distribution)

    def log_density(point: Point) -> Tensor:
        return called(distribution.log_prob, _off_the_ends(point.x, *ends))

    return View(log_density, (), *ends, closed=True)


def _polya_gamma(distribution: TruncatedPolyaGamma) -> View:
    """Pyro's alternating series, which Pyro sums outside of the logarithm: -inf below x = 2e-4."""
    odd = 2.0 * torch.arange(distribution.num_log_prob_terms, dtype=torch.float64) + 1

    def log_density(point: Point) -> Tensor:
        log_x = point.log_over(0.0).unsqueeze(-1)
        n = odd.to(log_x.device)
        terms = n.log() - 1.5 * log_x - 0.125 * n.square() * torch.exp(-log_x)
        plus, minus = (torch.logsumexp(terms[..., i::2], -1) for i in (0, 1))
        return plus + torch.log1p(-torch.exp(minus - plus)) - HALF_LOG_TAU

    return View(log_density, (), 0.0, distribution.truncation_point)


def _off_the_ends(x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """A point that has rounded to an end of the support, one digit inside of it."""
    eps = torch.finfo(x.dtype).eps
    for end, side in ((low, 1), (high, -1)):
        at = torch.as_tensor(end, dtype=x.dtype, device=x.device)
        if isinstance(end, Tensor) or math.isfinite(end):
            inside = at + side * torch.where(at == 0, 1e-300, eps * at.abs())
            x = torch.maximum(x, inside) if side > 0 else torch.minimum(x, inside)
    return x


def inside_of(point: Point, view: View, like: Tensor) -> Tensor:
    """Whether the image lies in q's support, the last digits of the ends apart."""
    image_low, image_high, low, high = (
        torch.as_tensor(end, dtype=like.dtype, device=like.device)
        for end in (point.low, point.high, view.low, view.high)
    )
    slack = 16 * torch.finfo(like.dtype).eps
    return (image_low >= low - slack * low.abs().nan_to_num(posinf=0.0)) & (
        image_high <= high + slack * high.abs().nan_to_num(posinf=0.0)
    )


def always_outside(point: Point, view: View) -> bool:
    """Whether the image ends outside of the support whatever the parameters."""
    pairs = ((point.low, view.low, 1), (point.high, view.high, -1))
    return any(
        not isinstance(mine, Tensor)
        and not isinstance(other, Tensor)
        and side * (mine - other) < 0
        for mine, other, side in pairs
    )
