"""Transforms as lists of plain maps (flat, merged, compared by value); supports of images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Number
from typing import Any

import pyro.distributions
import torch
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution, constraints
from torch.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    IndependentTransform,
    PowerTransform,
    Transform,
    _InverseTransform,
)

from ...numerics.concrete import holds_everywhere, is_constant, is_same
from ...registry.subclasses import is_a
from .supports import bounds, is_inside
from .transform_rules import direction

#: torch's class and Pyro's: a subclass of them may have a density of its own.
TRANSFORMED = (TransformedDistribution, pyro.distributions.TransformedDistribution)
#: Attributes of an instance on which the map does not depend.
_BOOKKEEPING = frozenset({"_cache_size", "_cached_x_y", "_inv", "_event_dim"})


def plain_maps(transforms: Iterable[Transform]) -> list[Transform]:
    """The same map as a list without compositions, identities, and pairs that cancel."""
    maps: list[Transform] = []
    for transform in transforms:
        for part in flattened(transform):
            _append(maps, part)
    return maps


def flattened(transform: Transform) -> list[Transform]:
    """The maps that a map is composed of; inverses of affine maps and powers are such maps."""
    if is_a(transform, ComposeTransform):
        return [flat for part in transform.parts for flat in flattened(part)]
    if is_a(transform, IndependentTransform):
        return flattened(transform.base_transform)
    if is_a(transform, AffineTransform) and transform.event_dim:
        return [AffineTransform(transform.loc, transform.scale)]
    if isinstance(transform, _InverseTransform):
        return _inverted(transform.inv)
    return [transform]


def _inverted(transform: Transform) -> list[Transform]:
    if is_a(transform, (ComposeTransform, IndependentTransform)):
        return [flat for part in reversed(flattened(transform)) for flat in _inverted(part)]
    if is_a(transform, AffineTransform):
        return [AffineTransform(-transform.loc / transform.scale, 1 / transform.scale)]
    if is_a(transform, PowerTransform):
        return [PowerTransform(1 / transform.exponent)]
    return [transform.inv]


def _append(maps: list[Transform], last: Transform) -> None:
    """Append a map, or merge it with the last one."""
    before = maps[-1] if maps else None
    if is_a(last, AffineTransform) and is_a(before, AffineTransform):
        maps.pop()
        last = AffineTransform(last.loc + last.scale * before.loc, last.scale * before.scale)
    elif before is not None and undoes(last, before):
        maps.pop()
        return
    if not _is_identity(last):
        maps.append(last)


def undoes(second: Transform, first: Transform) -> bool:
    """Whether the second map is the inverse of the first."""
    if isinstance(second, _InverseTransform):
        return same_map(second.inv, first)
    return isinstance(first, _InverseTransform) and same_map(first.inv, second)


def _is_identity(transform: Transform) -> bool:
    if is_a(transform, AffineTransform):
        return is_constant(transform.loc, 0.0) and is_constant(transform.scale, 1.0)
    if is_a(transform, PowerTransform):
        return is_constant(transform.exponent, 1.0)
    return False


def same_map(a: Transform, b: Transform) -> bool:
    """Whether two plain maps have the same class and the same parameters."""
    if a is b:
        return True
    if isinstance(a, _InverseTransform) and isinstance(b, _InverseTransform):
        return same_map(a.inv, b.inv)
    if type(a) is not type(b) or isinstance(a, torch.nn.Module):
        return False
    mine, others = ({k: v for k, v in vars(t).items() if k not in _BOOKKEEPING} for t in (a, b))
    return mine.keys() == others.keys() and all(_same(mine[k], others[k]) for k in mine)


def _same(x: Any, y: Any) -> bool:
    if x is y:
        return True
    if isinstance(x, Tensor | Number) and isinstance(y, Tensor | Number):
        return is_same(x, y)
    if isinstance(x, list | tuple) and isinstance(y, list | tuple):
        return len(x) == len(y) and all(_same(a, b) for a, b in zip(x, y, strict=True))
    if isinstance(x, Transform) and isinstance(y, Transform):
        return same_map(x, y)
    return isinstance(x, str | bool | None.__class__) and x == y


# --- supports -----------------------------------------------------------------------------------


def one_to_one(maps: Sequence[Transform], support: constraints.Constraint | None) -> bool:
    """Whether different points of a support have different images, as far as is known.

    A transform is bijective on its domain, but torch accepts a distribution with a larger support:
    PowerTransform(2) then maps x and -x to one image.
    """
    for transform in maps:
        if not transform.bijective or not is_inside(support, transform.domain):
            return False
        support = image(support, transform)
    return True


def image(support: Any, transform: Transform) -> Any:
    """The image of a support: an interval between images of its ends, or else the codomain.

    torch always takes the codomain; that of an affine map is the whole line.
    """
    ends, room = bounds(support), bounds(transform.codomain)
    if ends is None or room is None or transform.domain.event_dim:
        return transform.codomain
    if direction(transform) == -1:
        ends = ends[1], ends[0]
    elif direction(transform) != 1:
        return transform.codomain
    return constraints.interval(
        *(_end_of_image(transform, end, limit) for end, limit in zip(ends, room, strict=True))
    )


def mapped_support(distribution: Distribution) -> Any:
    """The support that a class declares, or the image of the base's support if it declares none.

    torch writes a Gumbel as a map of a Uniform on (eps, 1 - eps), and declares the whole line.
    """
    if not isinstance(distribution, TransformedDistribution):
        return distribution.support
    if type(distribution).support is not TransformedDistribution.support:
        return distribution.support
    support = mapped_support(distribution.base_dist)
    for transform in distribution.transforms:
        for part in flattened(transform):
            support = image(support, part)
    return support


def _end_of_image(transform: Transform, end: Any, limit: Any) -> Any:
    if holds_everywhere(end, lambda x: abs(x) == torch.inf):
        return limit
    return transform(end if isinstance(end, Tensor) else torch.tensor(float(end)))
