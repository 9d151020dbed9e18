"""TransformedDistribution and FoldedDistribution: their canonical form and shared maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.distributions import FoldedDistribution
from torch import Tensor
from torch.distributions import (
    Distribution,
    Exponential,
    Gumbel,
    Independent,
    Kumaraswamy,
    LogNormal,
    Normal,
    RelaxedBernoulli,
    TransformedDistribution,
    Weibull,
    kl_divergence,
)
from torch.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    PowerTransform,
    SigmoidTransform,
    TanhTransform,
    Transform,
)

from ...numerics.dtypes import in_float64
from ...registry.pair import Case
from ...registry.reduction import by_reduction, canonical, canonicalise
from ...registry.register import register
from ...registry.shapes import broadcast_batch, peel
from ...registry.subclasses import class_of, is_a
from ...registry.tensors import is_foreign, own_copy, promoted, tensors_in
from .closed_images import closed_image, folded, logistic_of, unfolded
from .maps import TRANSFORMED, flattened, mapped_support, one_to_one, plain_maps, same_map, undoes
from .supports import lives_above

#: torch writes them as maps of a Uniform, whose ends it rounds; their own densities are exact.
_DECLARED = (Gumbel, Kumaraswamy)


@canonical(FoldedDistribution)  # before its parent, TransformedDistribution
def canonical_folded(distribution: FoldedDistribution) -> Distribution:
    """The base itself where it is never negative, or the family of |x|."""
    base = canonicalise(distribution.base_dist)
    if lives_above(base.support, 0.0):
        return base
    half = folded(base)
    if half is not None or base is distribution.base_dist:
        return half or distribution
    return FoldedDistribution(base, validate_args=False)


def by_unfolding(p: Distribution, q: Distribution) -> Tensor | None:
    """The KL of two distributions symmetric about 0 is that of their absolute values."""
    whole_p, whole_q = unfolded(p), unfolded(q)
    if whole_p is None or whole_q is None:
        return None
    return kl_divergence(whole_p, whole_q).expand(broadcast_batch(p, q))


@canonical(TransformedDistribution)
def canonical_transformed(distribution: TransformedDistribution) -> Distribution:
    """The innermost base under a list of plain maps, or a family with the same distribution."""
    if type(distribution) not in TRANSFORMED:
        return distribution
    base, maps = _opened_plain(distribution)
    if maps and is_a(maps[0], AbsTransform) and not base.event_shape:
        base, maps = FoldedDistribution(base), maps[1:]
    base, maps = _absorbed(base, maps)
    if not maps:
        return base
    plain = mapped(base, maps)
    given = distribution.transforms
    is_same = base is distribution.base_dist and len(maps) == len(given)
    is_same = is_same and all(a is b for a, b in zip(maps, given, strict=True))
    # an Independent of an image is plainer than an image of an Independent
    return distribution if is_same and not isinstance(plain, Independent) else plain


def _opened_plain(distribution: Any) -> tuple[Distribution, list[Transform]]:
    """The base under all nested maps."""
    transforms: list[Transform] = []
    while type(distribution) in TRANSFORMED:
        transforms = [*distribution.transforms, *transforms]
        distribution = canonicalise(distribution.base_dist)
    return distribution, plain_maps(transforms)


def _absorbed(
    base: Distribution, maps: Sequence[Transform]
) -> tuple[Distribution, list[Transform]]:
    """The base and the maps that are left when closed images have taken the place of the base."""
    maps = list(maps)
    while maps:
        image = closed_image(base, maps[0])
        if image is None:
            inner, inner_maps = base_and_transforms(base)
            if not (inner_maps and undoes(maps[0], inner_maps[-1])):
                break
            image = mapped(inner, inner_maps[:-1])
        base, maps = canonicalise(image), maps[1:]
    return base, maps


def mapped(base: Distribution, maps: Sequence[Transform]) -> Distribution:
    """The image of a distribution; independent dimensions that no map mixes stay outside."""
    if not maps:
        return base
    if is_a(base, Independent):
        depth = ComposeTransform(list(maps)).domain.event_dim
        outer = min(base.reinterpreted_batch_ndims, len(base.event_shape) - depth)
        if outer > 0:
            inner = mapped(peel(base, outer), maps)
            return Independent(inner, outer, validate_args=False)
    return TransformedDistribution(base, list(maps), validate_args=False)


def base_and_transforms(distribution: Any) -> tuple[Distribution, list[Transform]]:
    """The base and the maps of a distribution; itself and no maps if it is not transformed."""
    if class_of(distribution) is RelaxedBernoulli:
        return logistic_of(distribution), [SigmoidTransform()]
    if class_of(distribution) is LogNormal:
        return Normal(distribution.loc, distribution.scale, validate_args=False), [ExpTransform()]
    if class_of(distribution) is Weibull:  # torch keeps the reciprocal as it was rounded
        unit = Exponential(torch.ones_like(distribution.scale), validate_args=False)
        return unit, [
            PowerTransform(1 / distribution.concentration),
            AffineTransform(0.0, distribution.scale),
        ]
    if not is_a(distribution, TransformedDistribution) or isinstance(distribution, _DECLARED):
        return distribution, []
    return canonicalise(distribution.base_dist), plain_maps(distribution.transforms)


def by_promotion(p: Distribution, q: Distribution) -> Tensor | None:
    """Merges, inverts and absorbs maps in float64, and rounds the KL once."""
    if not any(type(x) in TRANSFORMED for x in (p, q)) or is_foreign([p, q]):
        return None
    found = {x.dtype for x in (*tensors_in(p), *tensors_in(q))}
    finer = {in_float64(x).dtype for x in (*tensors_in(p), *tensors_in(q))}
    if found == finer:
        return None
    return kl_divergence(own_copy(p), own_copy(q)).to(promoted((p, q)))


def by_shared_map_as_given(p: Distribution, q: Distribution) -> Tensor | None:
    """Drops the maps that both distributions end with, before a family takes the place of any."""
    if type(p) not in TRANSFORMED or type(q) not in TRANSFORMED:
        return None
    return _of_inner(p, q, without_shared_maps(p, q, _as_given))


def by_shared_map(p: Distribution, q: Distribution) -> Tensor | None:
    """Drops the maps that both distributions end with, if they are one-to-one on both supports."""
    return _of_inner(p, q, without_shared_maps(p, q))


def _as_given(distribution: Any) -> tuple[Distribution, list[Transform]]:
    """The innermost base and all maps, neither merged nor absorbed."""
    maps: list[Transform] = []
    while type(distribution) in TRANSFORMED:
        maps = [*(part for t in distribution.transforms for part in flattened(t)), *maps]
        distribution = distribution.base_dist
    return distribution, maps


def without_shared_maps(
    p: Distribution,
    q: Distribution,
    parts: Callable[[Any], tuple[Distribution, list[Transform]]] = base_and_transforms,
) -> tuple[Distribution, Distribution] | None:
    """Both without the one-to-one maps that they end with; None if there are none."""
    (p_base, p_maps), (q_base, q_maps) = parts(p), parts(q)
    shared = 0
    for a, b in zip(reversed(p_maps), reversed(q_maps), strict=False):
        if not same_map(a, b):
            break
        shared += 1
    while shared:
        inner_p = mapped(p_base, p_maps[:-shared])
        inner_q = mapped(q_base, q_maps[:-shared])
        if all(one_to_one(p_maps[-shared:], mapped_support(x)) for x in (inner_p, inner_q)):
            return inner_p, inner_q
        shared -= 1
    return None


def _of_inner(p: Distribution, q: Distribution, inner: Any) -> Tensor | None:
    return None if inner is None else kl_divergence(*inner).expand(broadcast_batch(p, q))


def _tanh_of_normal(loc: Tensor, scale: Tensor) -> TransformedDistribution:
    return TransformedDistribution(Normal(loc, scale), TanhTransform())


@register(
    TransformedDistribution,
    TransformedDistribution,
    cases=[Case({"loc": 0.0, "scale": 2.0}, {"loc": 0.0, "scale": 2.0}, 0.0)],
    finite="the bases' KL is",
    reference="a shared one-to-one map leaves the KL unchanged",
    method="rule",
    replaces="torch's raises an empty NotImplementedError where the transforms are not equal as "
    "they are written, and lets maps drop out that are not one-to-one (2.0 instead of 0)",
    make_p=_tanh_of_normal,
    make_q=_tanh_of_normal,
)
def kl_transformed_transformed(p: TransformedDistribution, q: TransformedDistribution) -> Tensor:
    """KL of two mapped distributions, by the rules for wrapped distributions."""
    return by_reduction(p, q)
