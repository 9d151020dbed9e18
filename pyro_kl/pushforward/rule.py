"""A law mapped from the line against any univariate law: one integral over the base.

With x = T(u), KL(T(P) || q) = KL(P || q pulled back), whose log density is log q(T(u)) plus
log|T'(u)|. For a Normal base the nodes are constants and move with location and scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal
from torch.distributions.transforms import (
    AffineTransform,
    SigmoidTransform,
    TanhTransform,
    Transform,
)

from ..integrals import tell
from ..maps import one_to_one
from ..partials import is_transformed
from ..peaks import peak_between, square_over_jump
from ..quadrature import Integral, integrate
from ..reduction import describe, reduction
from ..shapes import broadcast_batch
from ..special import HALF_LOG_TAU, in_float64
from ..wrappers.canonical import class_of
from ..wrappers.transformed import opened
from .charts import carried, is_univariate, taken_back
from .parts import made_of, tensors_in
from .views import View, always_outside, inside_of, promoted, view_of

#: Candidates for where a Normal's integral may be cut off, in standard deviations; beyond the
#: last one the density itself is below the floats.
_REACHES = (9.5, 13.0, 17.0, 22.0, 28.0, 38.0)
#: Maps that, after another one, do not make it grow faster.
_AT_MOST_LINEAR = (AffineTransform, SigmoidTransform, TanhTransform)
#: Where a density underflows, these have to do.
_NARROW = (7.0, 8.0)
#: What lies beyond may weigh exp of this, against a KL of order 1.
_NEGLIGIBLE = -42.0


@reduction
def by_integral(p: Distribution, q: Distribution) -> Tensor | None:
    """A Normal, mapped or not, against a univariate law: an integral over the base."""
    if p.event_shape or q.event_shape:
        return None
    base, maps = opened(p)
    if class_of(base) is not Normal or not all(is_univariate(t) for t in maps):
        return None
    if not one_to_one(maps, base.support):
        return None
    view = view_of(q)
    if view is None:
        return None
    shape = broadcast_batch(p, q)
    found = _integral(base, maps, view, shape)
    tell(f"{describe(p)} || {describe(q)}", __name__, found)
    return found.value.to(promoted((p, q)))


@dataclass(frozen=True)
class _Pulled:
    """q's log density on the base's line, as a function of tensors in one list."""

    view: View
    maps: list[Transform]
    num_map_tensors: int

    def __call__(self, y: Tensor, *tensors: Tensor) -> Tensor:
        n = self.num_map_tensors
        maps = made_of(self.maps, iter(tensors[:n]))
        point = carried(maps, y)
        return self.view.log_density(point, *tensors[n:]) + point.log_slope


def _integral(base: Any, maps: list[Transform], view: View, shape: torch.Size) -> Integral:
    """The integral; inf where q has no mass on some of the image, or grows too fast."""
    map_tensors = [in_float64(x) for x in tensors_in(maps)]
    exact = made_of(maps, iter(map_tensors))
    loc, scale = in_float64(base.loc), in_float64(base.scale)
    log_q = _Pulled(view, exact, len(map_tensors))
    tensors = [x.expand(shape) for x in (loc, scale, *map_tensors, *view.tensors)]
    with torch.no_grad():
        image = carried(exact, loc)
        if always_outside(image, view):
            return Integral(torch.full_like(tensors[0], math.inf), torch.zeros_like(tensors[0]), 0)
        inside = inside_of(image, view, loc)
        reach, converges = _reaches(log_q, tensors)
        finite = inside & converges
    cuts = [_cut(exact, in_float64(x), loc, scale).expand(shape) for x in view.places]
    extra, narrow = torch.zeros(()).to(loc), None
    if view.underflows:  # nothing is known of it: it may have a kink at its top
        extra, top = _of_kink(log_q, tensors, reach)
        cuts, narrow = [top], torch.ones_like(top)

    def integrand(z: Tensor, m: Tensor, s: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        log_p = -0.5 * z * z - HALF_LOG_TAU
        return log_p, log_q(m + s * z, *rest) + torch.log(s) - log_p

    if is_transformed() or bool(finite.all()):
        found = integrate(integrand, tensors, reach, cuts, view.kinked, narrow=narrow)
        return replace(found, value=torch.where(finite, found.value + extra, math.inf))
    rows = torch.nonzero(finite.reshape(-1)).squeeze(-1)
    if not rows.numel():
        return Integral(torch.full_like(tensors[0], math.inf), torch.zeros_like(tensors[0]), 0)
    some, window, places = (
        [x.expand(shape).reshape(-1)[rows] for x in group] for group in (tensors, reach, cuts)
    )
    if narrow is not None:
        narrow = torch.ones_like(places[0])
    window_ends = window[0], window[1]
    found = integrate(integrand, some, window_ends, places, view.kinked, narrow=narrow)
    value, error = (
        torch.full((shape.numel(),), rest, dtype=x.dtype, device=x.device)
        .index_put((rows,), x)
        .reshape(shape)
        for x, rest in ((found.value, math.inf), (found.error, 0.0))
    )
    return replace(found, value=value + torch.where(finite, extra, 0.0), error=error)


def _of_kink(
    log_q: _Pulled, tensors: Sequence[Tensor], reach: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """What a kink at the top of log q adds to second derivatives, and where that is."""

    def along(z: Tensor, loc: Tensor, scale: Tensor, *rest: Tensor) -> Tensor:
        return log_q(loc + scale * z, *rest)

    fixed = [x.detach() for x in tensors]
    top = peak_between(lambda z: along(z, *fixed), *torch.broadcast_tensors(-reach[0], reach[1]))
    top = top.expand(tensors[0].shape)
    square = square_over_jump(lambda z: along(z, *tensors), top, torch.ones_like(top))
    density = torch.exp(-0.5 * top * top - HALF_LOG_TAU)
    return torch.nan_to_num(-0.5 * density * square, nan=0.0), top


def _cut(maps: list[Transform], x: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Where a kink of q's lies in p's scale: a second derivative knows how it moves."""
    with torch.no_grad():
        inside = torch.isfinite(taken_back(maps, x))
        somewhere = carried(maps, loc).x
    place = taken_back(maps, torch.where(inside, x, somewhere))
    return torch.where(inside, (place - loc) / scale, math.inf)


def _is_tame(log_q: _Pulled) -> bool:
    """Whether -log q grows no faster than |u| does: like log x, and x at most like exp(u)."""
    growth, maps = log_q.view.growth, log_q.maps
    slow = growth is not None and all(not isinstance(g, Tensor) and g == 0.0 for g in growth)
    return slow and all(type(t) in _AT_MOST_LINEAR for t in maps[1:] if maps)


def _where_it_underflows(
    log_q: _Pulled, loc: Tensor, scale: Tensor, rest: Sequence[Tensor]
) -> tuple[Tensor, Tensor] | None:
    """A window inside of where q's density is above 0, if there is need of one.

    Beyond 7 standard deviations is 3e-12 of the mass; nothing can be said if q's density is 0 in
    floating point before that.
    """
    candidates = (*_NARROW, *_REACHES)
    z = torch.tensor(candidates, dtype=loc.dtype, device=loc.device)
    z = z.reshape(-1, *(1,) * loc.dim())
    finite = [log_q(loc + scale * side * z, *rest).isfinite() for side in (-1, 1)]
    if bool(torch.stack(finite).all()):
        return None
    if not bool(torch.stack(finite)[:, 0].all()):
        raise NotImplementedError  # the caller knows the names
    ends = []
    for each in finite:
        reach = torch.full_like(loc, candidates[0])
        sound = each[0]
        for i in range(1, len(_NARROW) + 1):  # up to the first of the usual windows
            sound = sound & each[i]
            reach = torch.where(sound, candidates[i], reach)
        ends.append(reach)
    return ends[0], ends[1]


def _reaches(log_q: _Pulled, tensors: Sequence[Tensor]) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """How far the nodes go below and above, and whether anything is left beyond the floats."""
    loc, scale, *rest = tensors
    if _is_tame(log_q):
        reach = torch.full((), _REACHES[0], dtype=loc.dtype, device=loc.device)
        return (reach, reach), torch.ones_like(loc, dtype=torch.bool)
    if log_q.view.underflows and not is_transformed():
        narrow = _where_it_underflows(log_q, loc, scale, rest)
        if narrow is not None:
            return narrow, torch.ones_like(loc, dtype=torch.bool)
    z = torch.tensor(_REACHES, dtype=loc.dtype, device=loc.device)
    z = z.reshape(-1, *(1,) * loc.dim())
    found, converges = [], torch.ones_like(loc, dtype=torch.bool)
    for side in (-1, 1):
        size = log_q(loc + scale * side * z, *rest).abs()
        left = torch.log1p(torch.where(size.isnan(), math.inf, size)) - 0.5 * z * z
        over = (left > _NEGLIGIBLE).to(torch.int64)
        # the first candidate beyond which nothing is left
        index = (over * torch.arange(1, len(_REACHES) + 1, device=z.device).reshape(z.shape)).amax(
            0
        )
        converges = converges & (index < len(_REACHES))
        reach = torch.full_like(loc, _REACHES[0])
        for i, candidate in enumerate(_REACHES):
            reach = torch.where(index == i, candidate, reach)
        found.append(reach)
    return (found[0], found[1]), converges
