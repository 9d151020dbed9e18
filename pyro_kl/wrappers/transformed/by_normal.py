"""A distribution mapped from the line against any univariate distribution: one integral over the
base.

With x = T(u), KL(T(P) || q) = KL(P || q pulled back), whose log density is log q(T(u)) plus
log|T'(u)|. For a Normal base the nodes are constants and move with location and scale.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
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

from ...numerics.concrete import is_traced
from ...numerics.dtypes import in_float64
from ...numerics.quadrature.integrand import Integrand, Recorded
from ...numerics.quadrature.integrate import Integral, integrate
from ...numerics.special.logarithms import HALF_LOG_TAU
from ...registry.integrate import tell
from ...registry.line import from_line
from ...registry.reduction import describe, out_of_reach
from ...registry.shapes import broadcast_batch, nan_in
from ...registry.tensors import is_foreign, kind_of, made_of, promoted, tensors_in
from .closed_images import class_of
from .line_of import Tail, View, always_outside, inside_of, view_of
from .maps import one_to_one
from .rules import base_and_transforms
from .tails import infinite_by_tails
from .transform_rules import image_of, is_in_table, is_univariate, preimage_of

#: Candidates for where a Normal's integral may be cut off, in standard deviations; beyond the
#: last one the density itself is below the floats.
_REACHES = (9.5, 13.0, 17.0, 22.0, 28.0, 38.0)
#: Maps that, after another one, do not make it grow faster.
_AT_MOST_LINEAR = (AffineTransform, SigmoidTransform, TanhTransform)
#: What lies beyond may weigh exp of this, against a KL of order 1.
_NEGLIGIBLE = -42.0

_Reach = tuple[Tensor | float, Tensor | float]


def by_integral(p: Distribution, q: Distribution) -> Tensor | None:
    """A Normal, mapped or not, against a univariate distribution: an integral over the base."""
    if p.event_shape or q.event_shape:
        return None
    base, maps = base_and_transforms(p)
    if class_of(base) is not Normal or not all(is_univariate(t) for t in maps):
        return None
    if not one_to_one(maps, base.support):
        return None
    view = view_of(q)
    if view is None or view.closed or is_foreign(maps):
        return None
    shape = broadcast_batch(p, q)
    found = _integral(base, maps, view, shape)
    if found is None:
        raise out_of_reach(p, q)
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
        point = image_of(maps, from_line(y))
        return self.view.log_density(point, *tensors[n:]) + point.log_slope


@dataclass(frozen=True)
class _Kind:
    """Integrands that differ in their tensors alone; one of them, to be recorded."""

    key: Hashable
    log_q: _Pulled = field(compare=False)


def _integrand(log_q: _Pulled) -> Integrand:
    def integrand(z: Tensor, m: Tensor, s: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        log_p = -0.5 * z * z - HALF_LOG_TAU
        return log_p, log_q(m + s * z, *rest) + torch.log(s) - log_p

    return integrand


@lru_cache(maxsize=256)
def _recorded(kind: _Kind) -> Recorded:
    """One for each kind: it keeps its programs."""
    log_q = kind.log_q
    # of the tensors it needs the number, and keeps no graph of theirs
    maps = made_of(log_q.maps, iter([x.detach() for x in tensors_in(log_q.maps)]))
    view = View(log_q.view.log_density, (), -math.inf, math.inf)
    return Recorded(_integrand(_Pulled(view, maps, log_q.num_map_tensors)))


def _integrand_of(log_q: _Pulled) -> Integrand:
    """Recorded, unless q or a map is code of its own."""
    maps = kind_of(log_q.maps) if all(is_in_table(t) for t in log_q.maps) else None
    if log_q.view.key is None or maps is None or is_traced():
        return _integrand(log_q)
    return _recorded(_Kind((log_q.view.key, maps), log_q))


def _integral(base: Any, maps: list[Transform], view: View, shape: torch.Size) -> Integral | None:
    """The integral; inf where q has no mass on some of the image, or grows too fast.

    Rows with a parameter that is nan are nan, and not integrated. None if something is left
    beyond the floats that is not known to be infinite.
    """
    map_tensors = [in_float64(x) for x in tensors_in(maps)]
    exact = made_of(maps, iter(map_tensors))
    loc, scale = in_float64(base.loc), in_float64(base.scale)
    log_q = _Pulled(view, exact, len(map_tensors))
    tensors = [x.expand(shape) for x in (loc, scale, *map_tensors, *view.tensors)]
    with torch.no_grad():
        image = image_of(exact, from_line(loc))
        if always_outside(image, view):
            return Integral(torch.full_like(tensors[0], math.inf), torch.zeros_like(tensors[0]), 0)
        inside = inside_of(image, view, loc)
        reach, converges = _reaches(log_q, tensors)
        missing = nan_in(tensors)
        inside = inside & ~missing
        finite = inside & converges
        if not _is_tame(log_q) and not is_traced():
            tail = Tail(math.inf, 2.0, 0.5 / scale.square())
            inside = inside & ~infinite_by_tails((tail, tail), from_line(loc), exact, view)
            finite = inside & converges
            if bool((inside & ~converges).any()):
                return None
        otherwise = torch.where(missing, math.nan, math.inf).to(tensors[0])

    def cuts() -> list[Tensor]:
        return [_cut(exact, in_float64(x), loc, scale).expand(shape) for x in view.places]

    integrand = _integrand_of(log_q)
    if is_traced() or bool(finite.all()):
        found = integrate(integrand, tensors, reach, cuts, view.kinked)
        return replace(found, value=torch.where(finite, found.value, otherwise))
    rows = torch.nonzero(finite.reshape(-1)).squeeze(-1)
    if not rows.numel():
        return Integral(otherwise, torch.zeros_like(otherwise), 0)

    def of_rows(group: Sequence[Tensor]) -> list[Tensor]:
        return [x.expand(shape).reshape(-1)[rows] for x in group]

    low, high = (of_rows([x])[0] if isinstance(x, Tensor) else x for x in reach)
    found = integrate(
        integrand, of_rows(tensors), (low, high), lambda: of_rows(cuts()), view.kinked
    )
    value, error = (
        rest.reshape(-1).index_put((rows,), x.to(rest)).reshape(shape)
        for x, rest in ((found.value, otherwise), (found.error, torch.zeros_like(otherwise)))
    )
    return replace(found, value=value, error=error)


def _cut(maps: list[Transform], x: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Where a kink of q's lies in p's scale: a second derivative knows how it moves."""
    with torch.no_grad():
        inside = torch.isfinite(preimage_of(maps, x))
        somewhere = image_of(maps, from_line(loc)).x
    place = preimage_of(maps, torch.where(inside, x, somewhere))
    return torch.where(inside, (place - loc) / scale, math.inf)


def _is_tame(log_q: _Pulled) -> bool:
    """Whether -log q grows no faster than |u| does: like log x, and x at most like exp(u)."""
    tails, maps = log_q.view.tails, log_q.maps
    slow = tails is not None and all(
        not isinstance(tail.growth, Tensor) and tail.growth == 0.0 for tail in tails
    )
    return slow and all(type(t) in _AT_MOST_LINEAR for t in maps[1:] if maps)


def _reaches(log_q: _Pulled, tensors: Sequence[Tensor]) -> tuple[_Reach, Tensor]:
    """How far the nodes go below and above, and whether anything is left beyond the floats."""
    loc, scale, *rest = tensors
    if _is_tame(log_q):
        return (_REACHES[0], _REACHES[0]), torch.ones_like(loc, dtype=torch.bool)
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
