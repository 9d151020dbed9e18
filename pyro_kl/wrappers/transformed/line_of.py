"""The line of a univariate distribution: its log density at any point, and where its mass lies.

An integral over p's line needs the log density of q at points of it; where p's own mass lies is
needed of p alone. Both are functions of the tensors that a distribution is made of, by which the
integral is differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

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
from ...registry.family import Family, end_at
from ...registry.line import Line, Point, from_line, half_line
from ...registry.reduction import canonicalise
from ...registry.register import family_of
from ...registry.subclasses import class_of
from ...registry.tensors import is_foreign, kind_of, made_of, tensors_in
from ..circle import period_of
from .distribution_line import DistributionLine, End, Mass, Tail, heavier, tail_of
from .maps import one_to_one, plain_maps
from .rules import base_and_transforms
from .supports import bounds
from .transform_rules import image_of, is_in_table, is_univariate
from .user_code import line_by_log_prob

#: A program repeats the density for every component; mixtures of more are not recorded.
_MOST_RECORDED = 4


def line_of(distribution: Distribution) -> DistributionLine | None:
    """The line of a distribution; None if too little is known of it."""
    distribution = canonicalise(distribution)
    if distribution.event_shape or isinstance(distribution, Delta | Stable):
        return None  # Pyro's Stable.log_prob is wrong far out
    own = _own_line(distribution)
    if own is not None or isinstance(distribution, FoldedDistribution):
        return own
    if is_foreign(distribution):
        return line_by_log_prob(distribution)
    if isinstance(distribution, MixtureSameFamily):
        return _mixture(distribution)
    if isinstance(distribution, ImproperUniform):
        ends = bounds(distribution.support)
        return ends and DistributionLine(lambda point: torch.zeros_like(point.x), (), *ends)
    if isinstance(distribution, TruncatedPolyaGamma):
        return _polya_gamma(distribution)
    return _mapped(distribution) or line_by_log_prob(distribution)


def line_and_maps(
    distribution: Distribution,
) -> tuple[DistributionLine, list[Transform]] | None:
    """A line on which the mass of a distribution is known, and the maps from there to it.

    None if there is no such line, or if the maps are not one-to-one on it.
    """
    distribution = canonicalise(distribution)
    line = _own_line(distribution)
    if line is not None:
        return line, []
    base, maps = base_and_transforms(distribution)
    if not all(is_univariate(t) for t in maps) or not one_to_one(maps, base.support):
        return None
    line = _own_line(base)
    return None if line is None else (line, maps)


def _own_line(distribution: Distribution) -> DistributionLine | None:
    """The line of a declared family, or of one that is folded at 0."""
    if isinstance(distribution, FoldedDistribution):
        return _folded(distribution)
    cls = class_of(distribution)
    family = family_of(cls)
    if family is None or family.line is None or family.distribution is not cls:
        return None
    return _declared(distribution, family, family.line)


def _declared(distribution: Distribution, family: Family, line: Line) -> DistributionLine:
    values = {name: in_float64(x) for name, x in family.of(distribution).items()}
    names = tuple(values)

    def named(tensors: tuple[Tensor, ...]) -> Parameters:
        return dict(zip(names, tensors, strict=True))

    def standard(z: Tensor) -> Tensor:
        assert line.standard is not None
        unit = {name: torch.full_like(z, x) for name, x in line.standard.items()}
        point = line.at(z, **unit)
        return line.log_density(point, **unit) + point.log_slope

    def scale(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        own = named(tensors)
        return line.centre(**own), line.width(**own)

    def breakpoints() -> tuple[Tensor, ...]:
        if family.kinks:
            return tuple(torch.as_tensor(x) for x in family.kinks(**values))
        return (line.at(line.centre(**values), **values).x.detach(),)

    low, high = (end_at(end, values) for end in (family.support.low, family.support.high))
    if family.support.period is not None:  # the density of angles is periodic
        low, high = -math.inf, math.inf

    def mass() -> Mass:
        return Mass(
            at=lambda y, *tensors: line.at(y, **named(tensors)),
            place=lambda x, *tensors: line.place(x, **named(tensors)),
            scale=scale,
            window=line.reach,
            is_peaked=line.peaked or bool(family.kinks),
            is_whole_line=line.at is from_line,
            standard=None if line.standard is None else standard,
        )

    return DistributionLine(
        lambda point, *tensors: line.log_density(point, **named(tensors)),
        tuple(values.values()),
        low,
        high,
        breakpoints,
        has_kinks=bool(family.kinks),
        tails=(tail_of(line, 0, values), tail_of(line, 1, values)),
        mass=mass,
        key=(line, names),
    )


def _folded(distribution: FoldedDistribution) -> DistributionLine | None:
    """The density at x plus that at -x; its mass lies on the line of log x."""
    base = line_of(distribution.base_dist)
    if base is None or period_of(distribution.base_dist) is not None:
        return None
    base_mass, base_density = base.mass and base.mass(), base.log_density

    def log_density(point: Point, *tensors: Tensor) -> Tensor:
        straight, mirrored = (
            Point(side * point.x, point.log_slope, log_size=point.log_size) for side in (1, -1)
        )
        return logaddexp(base_density(straight, *tensors), base_density(mirrored, *tensors))

    tails = base.tails and (Tail(1.0, 0.0), heavier(*base.tails))

    def scale(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        assert base_mass is not None
        centre, width = base_mass.scale(*tensors)
        middle, right = (base_mass.at(y, *tensors).x for y in (centre, centre + width))
        spread = (right - middle).abs()
        size = torch.hypot(middle, spread)
        return torch.log(size), spread / size

    def mass() -> Mass:
        assert base_mass is not None
        assert tails is not None
        width = scale(*base.tensors)[1].detach()
        # next to 0 the density is as good as constant
        far, index = 45.0 / width, torch.as_tensor(tails[1].index, dtype=width.dtype)
        window = far, far / index.clamp(max=1.0)
        at, place = lambda y, *_: half_line(y), lambda x, *_: torch.log(x)
        return Mass(at, place, scale, window, base_mass.is_peaked)

    def breakpoints() -> tuple[Tensor, ...]:
        return tuple(x.abs() for x in base.breakpoints())

    return DistributionLine(
        log_density, base.tensors, 0.0, math.inf, breakpoints, base.has_kinks, tails,
        None if base_mass is None else mass, is_opaque=base.is_opaque,
        key=("folded", base.key) if base.key else None,
    )  # fmt: skip


def _mixture(distribution: MixtureSameFamily) -> DistributionLine | None:
    """The weighted densities of the components, each with tensors of its own."""
    whole = line_of(distribution.component_distribution)
    if whole is None:
        return None
    count, size = distribution.mixture_distribution.logits.shape[-1], len(whole.tensors)
    density_of_one = whole.log_density
    logits = torch.log_softmax(in_float64(distribution.mixture_distribution.logits), -1)
    shape = distribution.component_distribution.batch_shape
    apart = [x.expand(shape).unbind(-1) for x in whole.tensors]
    tensors = [*logits.unbind(-1), *(part[k] for k in range(count) for part in apart)]

    def log_density(point: Point, *tensors: Tensor) -> Tensor:
        weights, rest = tensors[:count], tensors[count:]
        each = [
            weights[k] + density_of_one(point, *rest[k * size : (k + 1) * size])
            for k in range(count)
        ]
        return torch.logsumexp(torch.stack(torch.broadcast_tensors(*each)), 0)

    def outermost(end: End, choose: Callable[..., Tensor]) -> End:
        return choose(end.expand(shape), -1) if isinstance(end, Tensor) else end

    def heaviest(tail: Tail) -> Tail:
        index, growth, rate = (
            outermost(x, torch.amin) for x in (tail.index, tail.growth, tail.rate)
        )
        # of the components that fall most slowly
        slow = torch.as_tensor(tail.growth) <= torch.as_tensor(growth).unsqueeze(-1)
        if isinstance(rate, Tensor) and growth == math.inf:
            slow = torch.as_tensor(tail.rate).expand(shape) <= rate.unsqueeze(-1)
        decay = torch.where(slow, torch.as_tensor(tail.decay), math.inf).expand(shape).amin(-1)
        return Tail(index, growth, rate, decay)

    def breakpoints() -> tuple[Tensor, ...]:
        every = [x.expand(shape) for x in whole.breakpoints()]
        return tuple(x[..., k] for x in every for k in range(min(count, 8)))

    low, high = outermost(whole.low, torch.amin), outermost(whole.high, torch.amax)
    # where both ends differ between components, there may be gaps between these
    known = whole.tails is not None and not (
        isinstance(whole.low, Tensor) and isinstance(whole.high, Tensor)
    )
    tails = (heaviest(whole.tails[0]), heaviest(whole.tails[1])) if whole.tails and known else None
    return DistributionLine(
        # a narrow component changes the density as a kink does: the nodes crowd at each of them
        log_density, tuple(tensors), low, high, breakpoints, has_kinks=True, tails=tails,
        key=("mixture", count, whole.key) if whole.key and count <= _MOST_RECORDED else None,
    )  # fmt: skip


def _mapped(distribution: Distribution) -> DistributionLine | None:
    """The density of the base at the point that the maps take to x, times its slope."""
    base_distribution, maps = base_and_transforms(distribution)
    if not maps or not all(is_univariate(t) for t in maps):
        return None
    base = line_of(base_distribution) if one_to_one(maps, base_distribution.support) else None
    if base is None or base.is_opaque:
        return None
    back = plain_maps([t.inv for t in reversed(maps)])
    given = [in_float64(x) for x in tensors_in(back)]
    count, base_density = len(given), base.log_density
    template = made_of(back, iter([x.detach() for x in given]))

    def log_density(point: Point, *tensors: Tensor) -> Tensor:
        start = replace(point, log_slope=torch.zeros_like(point.x))
        moved = image_of(made_of(template, iter(tensors[:count])), start)
        return base_density(moved, *tensors[count:]) + moved.log_slope

    def breakpoints() -> tuple[Tensor, ...]:
        places = [in_float64(x) for x in base.breakpoints()]
        for transform in maps:
            places = [transform(x) for x in places]
        return tuple(places)

    places = base.breakpoints()
    start = in_float64(places[0]).detach() if places else torch.zeros((), dtype=torch.float64)
    kind = kind_of(back) if all(is_in_table(t) for t in back) else None
    image = image_of(maps, Point(start, start, low=base.low, high=base.high))
    return DistributionLine(
        log_density, (*given, *base.tensors), image.low, image.high, breakpoints, base.has_kinks,
        base=base, back=tuple(made_of(back, iter(given))),
        key=("mapped", kind, base.key) if kind and base.key else None,
    )  # fmt: skip


def _polya_gamma(distribution: TruncatedPolyaGamma) -> DistributionLine:
    """Pyro's alternating series, which Pyro sums outside of the logarithm: -inf below x = 2e-4."""
    odd = 2.0 * torch.arange(distribution.num_log_prob_terms, dtype=torch.float64) + 1

    def log_density(point: Point) -> Tensor:
        log_x = point.log_over(0.0).unsqueeze(-1)
        n = odd.to(log_x.device)
        terms = n.log() - 1.5 * log_x - 0.125 * n.square() * torch.exp(-log_x)
        plus, minus = (torch.logsumexp(terms[..., i::2], -1) for i in (0, 1))
        return plus + torch.log1p(-torch.exp(minus - plus)) - HALF_LOG_TAU

    return DistributionLine(log_density, (), 0.0, distribution.truncation_point)
