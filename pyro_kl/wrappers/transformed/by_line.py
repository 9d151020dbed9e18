"""Any univariate distribution with a line, mapped or folded, against any other: one integral."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import FoldedDistribution
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.transforms import Transform

from ...numerics.concrete import is_traced
from ...numerics.dtypes import in_float64
from ...numerics.quadrature.integrate import integrate, integrate_closed
from ...numerics.quadrature.peaks import peak_between, square_over_jump
from ...registry.integrate import tell
from ...registry.line import Point, half_line
from ...registry.provenance import Use, note
from ...registry.reduction import canonicalise, describe, no_formula, out_of_reach
from ...registry.register import family_of
from ...registry.shapes import broadcast_batch, nan_in
from ...registry.tensors import is_foreign, made_of, promoted, tensors_in
from ...registry.user_classes import callable_copy, check_pointwise
from .closed_images import class_of
from .line_of import Tail, View, always_outside, heavier, inside_of, tail_of, view_of
from .maps import one_to_one
from .rules import base_and_transforms
from .tails import infinite_by_tails
from .transform_rules import image_of, is_univariate, preimage_of

#: The most elements for which code of others is evaluated some hundred times each: sampling, which
#: does it once, is the better bargain for more.
_MOST = 64
#: Windows that are tried, in multiples of the first.
_WIDER = (1.0, 1.25, 1.5, 1.75, *(2.0**k for k in range(1, 7)))
_NEGLIGIBLE = -34.0


@dataclass(frozen=True)
class Source:
    """A distribution on its line.

    Args:
        log_density: `log_density(point, *tensors)`.
        at: `at(y, *tensors)`, the point where y of the line lies.
        place: `place(x, *tensors)`, its inverse.
        tensors: what it depends on, in float64.
        centre: where its mass is.
        width: how wide it is.
        reach: how many widths below and above all of it lies.
        tails: lower and upper.
        kinked: whether nodes must crowd at the centre.
    """

    log_density: Callable[..., Tensor]
    at: Callable[..., Point]
    place: Callable[..., Tensor]
    tensors: tuple[Tensor, ...]
    centre: Tensor
    width: Tensor
    reach: tuple[Tensor | float, Tensor | float]
    tails: tuple[Tail, Tail]
    kinked: bool


def source_of(distribution: Distribution) -> Source | None:
    """The distribution on its line; None if it does not know it."""
    distribution = canonicalise(distribution)
    if isinstance(distribution, FoldedDistribution):
        return _folded(distribution)
    family = family_of(class_of(distribution))
    if family is None or family.line is None or family.distribution is not class_of(distribution):
        return None
    line = family.line
    values = {name: in_float64(x) for name, x in family.of(distribution).items()}
    names = tuple(values)

    def by_name(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda y, *tensors: function(y, **dict(zip(names, tensors, strict=True)))

    return Source(
        by_name(line.log_density),
        by_name(line.at),
        by_name(line.place),
        tuple(values.values()),
        line.centre(**values).detach(),
        line.width(**values).detach(),
        line.reach,
        (tail_of(line, 0, values), tail_of(line, 1, values)),
        line.peaked or bool(family.kinks),
    )


def _folded(distribution: FoldedDistribution) -> Source | None:
    """On the line of log x; near 0 the density is as good as constant."""
    base, view = (
        source_of(distribution.base_dist),
        view_of(distribution),
    )  # no view of folded angles
    if base is None or view is None:
        return None
    middle, right = (base.at(base.centre + k * base.width, *base.tensors).x for k in (0, 1))
    spread = (right - middle).abs()
    size = torch.hypot(middle, spread)
    width = (spread / size).detach()
    far, tail = 45.0 / width, heavier(*base.tails)
    index = torch.as_tensor(tail.index, dtype=size.dtype)
    return Source(
        view.log_density,
        lambda y, *_: half_line(y),
        lambda x, *_: torch.log(x),
        base.tensors,
        torch.log(size).detach(),
        width,
        (far, far / index.clamp(max=1.0)),
        (Tail(1.0, 0.0), tail),
        base.kinked,
    )


def by_line(p: Distribution, q: Distribution) -> Tensor | None:
    """A distribution that knows its line, mapped or folded, against a univariate distribution."""
    if p.event_shape or q.event_shape or is_traced():
        return None
    source = source_of(p)
    maps: list[Transform] = []
    if source is None:
        base, maps = base_and_transforms(p)
        if not all(is_univariate(t) for t in maps) or not one_to_one(maps, base.support):
            return None
        source = source_of(base)
    view = view_of(q)
    if source is None or view is None:
        return None
    shape = broadcast_batch(p, q)
    integral = _Integral(source, maps, view, shape)
    return integral.value(p, q).to(promoted((p, q)))


class _Integral:
    """What is integrated, and where it is finite."""

    def __init__(
        self, source: Source, maps: list[Transform], view: View, shape: torch.Size
    ) -> None:
        self.source, self.view, self.shape = source, view, shape
        foreign = is_foreign(maps)
        self.closed = view.closed or foreign
        map_tensors = [] if foreign else [in_float64(x) for x in tensors_in(maps)]
        self.maps = callable_copy(maps) if foreign else made_of(maps, iter(map_tensors))
        tensors = (source.centre, source.width, *source.tensors, *map_tensors, *view.tensors)
        self.ends = len(source.tensors), len(source.tensors) + len(map_tensors)
        self.tensors = [x.expand(shape) for x in tensors]

    def __call__(
        self, z: Tensor, centre: Tensor, width: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        i, j = self.ends
        start = self.source.at(centre + width * z, *tensors[:i])
        maps = made_of(self.maps, iter(tensors[i:j])) if i < j else self.maps
        return self._densities(start, image_of(maps, start), width, tensors)

    def _densities(
        self, start: Point, point: Point, width: Tensor, tensors: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        i, j = self.ends
        log_p = self.source.log_density(start, *tensors[:i])
        log_q = self.view.log_density(point, *tensors[j:])
        ratio = log_q + point.log_slope - start.log_slope - log_p
        return log_p + start.log_slope + torch.log(width), ratio

    def _with_bends(self, z: Tensor) -> tuple[Tensor, ...]:
        """The same, and the maps' log slopes, where the slopes by their parameters jump.

        They are added such that none cancels, as those of a map and its inverse do in log q.
        """
        centre, width, *tensors = self.tensors
        start = point = self.source.at(centre + width * z, *tensors[: self.ends[0]])
        bends = torch.zeros_like(point.x)
        for k, transform in enumerate(self.maps):
            moved = image_of([transform], point)
            bends = bends + (k + 1) * (moved.log_slope - point.log_slope)
            point = moved
        return (*self._densities(start, point, width, tensors), bends)

    def value(self, p: Distribution, q: Distribution) -> Tensor:
        with torch.no_grad():
            if self.closed:  # first of all: nothing else may be asked of what is no function
                if self.shape.numel() > _MOST:
                    raise NotImplementedError(
                        f"KL({describe(p)} || {describe(q)}) would evaluate code that is not "
                        f"pyro_kl's hundreds of times for each of {self.shape.numel()} elements: "
                        "sample it, with pyro_kl.monte_carlo(p, q)."
                    )
                check_pointwise(lambda z: self(z, *self.tensors)[1], self._some_points())
            start = self.source.at(self.source.centre.unsqueeze(0), *self.source.tensors)
            image = image_of(self.maps, start)
            if always_outside(image, self.view):
                note(Use("infinite", __name__))
                return torch.full(self.shape, math.inf, dtype=self.tensors[0].dtype)
            finite = inside_of(image, self.view, self.source.centre).expand(self.shape)
            missing = nan_in(self.tensors)
            finite = finite & ~missing
            if bool(finite.any()):
                tails = self.source.tails
                finite = finite & ~infinite_by_tails(tails, start, self.maps, self.view)
            otherwise = torch.where(missing, math.nan, math.inf).to(self.tensors[0])
        rows = torch.nonzero(finite.reshape(-1)).squeeze(-1)
        if not rows.numel():
            note(Use("infinite", __name__))
            return otherwise
        with torch.no_grad():
            window, converges = self._window()
        if bool((finite & ~converges).any()):
            raise no_formula(p, q) if self.closed else out_of_reach(p, q)
        if self.closed:
            return self._of_whole_batch(p, q, window, finite)
        some, reach, cuts = (
            [x.expand(self.shape).reshape(-1)[rows] for x in group]
            for group in (self.tensors, window, [self._cut(x) for x in self.view.places])
        )
        kinked = self.source.kinked or self.view.kinked
        # the maps bend too, wherever they do
        narrow = torch.ones_like(some[0])
        found = integrate(self, some, (reach[0], reach[1]), cuts, kinked, narrow=narrow)
        if not bool((found.value > -math.inf).all()):  # false of nan, too
            raise out_of_reach(p, q)
        tell(f"{describe(p)} || {describe(q)}", __name__, found)
        return otherwise.reshape(-1).index_put((rows,), found.value).reshape(self.shape)

    def _some_points(self) -> Tensor:
        """Five places around p's centre for each row."""
        z = torch.linspace(-2.0, 2.0, 5).to(self.tensors[0])
        return z.reshape(-1, *(1,) * len(self.shape)).expand(5, *self.shape).contiguous()

    def _of_whole_batch(
        self, p: Distribution, q: Distribution, window: tuple[Tensor, Tensor], finite: Tensor
    ) -> Tensor:
        """What keeps its parameters to itself: in the graph that its own operations make.

        Nothing is known of log q: it may be narrow, it may bend anywhere. What has not become as
        exact as asked is no answer: draws, which may stand in, are right on average.
        """

        def log_q(z: Tensor) -> Tensor:
            log_p, ratio = self(z, *self.tensors)
            return log_p + ratio

        top = peak_between(log_q, -window[0], window[1])
        found = integrate_closed(self._with_bends, window, [top])
        if found.reason or not bool((finite & found.value.isfinite()).all()):
            reason = found.reason or "not all elements of the batch have a finite KL"
            raise NotImplementedError(f"KL({describe(p)} || {describe(q)}): {reason}.")
        tell(f"{describe(p)} || {describe(q)}", __name__, found)
        if not found.value.requires_grad:
            return found.value
        with torch.no_grad():
            density = torch.exp(self(top.unsqueeze(0), *self.tensors)[0].squeeze(0))
        square = square_over_jump(log_q, top, torch.ones_like(top))
        return found.value + torch.nan_to_num(-0.5 * density * square, nan=0.0)

    def _cut(self, x: Tensor) -> Tensor:
        """Where a place of q's lies in p's scale; at infinity if p does not reach it."""
        i, j = self.ends
        own = self.tensors[2 : 2 + i]
        maps = made_of(self.maps, iter(self.tensors[2 + i : 2 + j]))

        def place(x: Tensor) -> Tensor:
            y = self.source.place(preimage_of(maps, x), *own)
            return (y - self.source.centre) / self.source.width

        x = in_float64(x).expand(self.shape)
        with torch.no_grad():
            inside = place(x).isfinite()
            somewhere = image_of(maps, self.source.at(self.source.centre, *own)).x
        return torch.where(inside, place(torch.where(inside, x, somewhere)), math.inf)

    def _window(self) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """The narrowest window beyond which nothing is left, and whether there is one."""
        found, converges = [], torch.ones(self.shape, dtype=torch.bool)
        for side, reach in zip((-1, 1), self.source.reach, strict=True):
            first = torch.as_tensor(reach, dtype=self.tensors[0].dtype).expand(self.shape)
            chosen, done = first, torch.zeros(self.shape, dtype=torch.bool)
            for factor in _WIDER:
                log_p, ratio = self(side * factor * first, *self.tensors)
                # a ratio that has overflowed may be that of an infinite KL
                size = torch.where(ratio.isnan(), math.inf, ratio.abs())
                left = log_p + torch.log1p(size)
                enough = (left < _NEGLIGIBLE) | torch.isneginf(log_p)
                chosen = torch.where(~done & enough, factor * first, chosen)
                done = done | enough
            found.append(chosen)
            converges = converges & done
        return (found[0], found[1]), converges


__all__: Sequence[str] = ["Source", "by_line", "source_of"]
