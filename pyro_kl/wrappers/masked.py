"""MaskedDistribution and MaskedMixture: a mask selects elements of a batch.

Under a MaskedDistribution an element counts if both sides' masks let it count, as in Pyro's own
rule for two masks. A mask on one side alone has no KL: TraceMeanField_ELBO then adds the log
densities of guide and model, each with its own mask. Only a point (Delta) as p is compared with
any q, because Pyro does so.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import Delta, MaskedDistribution, MaskedMixture, Normal
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from ..messages import see
from ..numerics.concrete import holds_everywhere
from ..registry.pair import Case
from ..registry.reduction import NoDivergence, canonical, canonicalise
from ..registry.register import register
from ..registry.shapes import as_delta, broadcast_batch, some_tensor
from ..registry.subclasses import is_a

Mask = bool | Tensor


def both(a: Mask, b: Mask) -> Mask:
    """The mask of the elements that both masks select."""
    if isinstance(a, bool):
        return b if a else False
    if isinstance(b, bool):
        return a if b else False
    return a if a is b else a & b


@canonical(MaskedDistribution)
def canonical_masked(distribution: MaskedDistribution) -> Distribution:
    """The base under at most one mask, which is not True."""
    base = canonicalise(distribution.base_dist)
    mask: Mask = distribution._mask
    if is_a(base, MaskedDistribution):
        base, mask = base.base_dist, both(mask, base._mask)
    if mask is True:
        return base
    return distribution if base is distribution.base_dist else MaskedDistribution(base, mask)


def unmasked(distribution: Any) -> tuple[Any, Mask]:
    """A distribution without its masks, and the mask of the elements that all of them select."""
    mask: Mask = True
    bare: Any = distribution
    while is_a(bare, MaskedDistribution):
        bare, mask = bare.base_dist, both(mask, bare._mask)
    return bare, mask


def by_mask(p: Distribution, q: Distribution) -> Tensor | None:
    """The KL of the bases where both masks let an element count, 0 elsewhere."""
    (bare_p, p_mask), (bare_q, q_mask) = unmasked(p), unmasked(q)
    if bare_p is p and bare_q is q:
        return None
    if not _is_point(bare_p):
        check_masks(p, q, p_mask, q_mask)
    shape, mask = broadcast_batch(p, q), both(p_mask, q_mask)
    if mask is False:  # nothing is computed, as Pyro promises
        return some_tensor(bare_p).new_zeros(()).expand(shape)
    kl = kl_divergence(bare_p, bare_q).expand(shape)
    return kl if mask is True else torch.where(mask, kl, 0.0)


def check_masks(
    p: Distribution, q: Distribution, p_mask: Mask, q_mask: Mask, name: str = "KL"
) -> None:
    """Refuse a mask on one side alone."""
    if (p_mask is True) != (q_mask is True):
        divergence = "KL" if name == "KL" else "divergence"
        raise NoDivergence(
            f"{name}({type(p).__name__} || {type(q).__name__}): a mask on one side alone leaves "
            f"out part of one density, and what is left is no {divergence}. Mask both sides, "
            f"p.mask(m) and q.mask(m), for the {divergence} of what counts" + see("not-a-kl")
        )


def _is_point(distribution: Distribution) -> bool:
    return is_a(distribution, Delta) or as_delta(distribution) is not None


def _masked_normal(loc: Tensor, scale: Tensor, mask: Tensor) -> MaskedDistribution:
    return Normal(loc, scale).mask(mask > 0)


@register(
    MaskedDistribution,
    MaskedDistribution,
    cases=[
        Case(
            {"loc": 1.0, "scale": 1.0, "mask": 1.0}, {"loc": 0.0, "scale": 1.0, "mask": 1.0}, 0.5
        ),
        Case(
            {"loc": 1.0, "scale": 1.0, "mask": 1.0}, {"loc": 0.0, "scale": 1.0, "mask": 0.0}, 0.0
        ),
    ],
    finite="the KLs of the elements that count are",
    reference="Pyro's convention for two masks: an element counts if both sides let it",
    method="rule",
    replaces="Pyro returns the number 0.0 for `.mask(False)`, without a shape",
    make_p=_masked_normal,
    make_q=_masked_normal,
)
def kl_masked_masked(p: MaskedDistribution, q: MaskedDistribution) -> Tensor:
    """KL where both masks let an element count, 0 elsewhere."""
    value = by_mask(p, q)
    assert value is not None
    return value


# --- MaskedMixture ------------------------------------------------------------------------------


def by_selection(p: Any, q: Any) -> Tensor | None:
    """Element by element the KL of the components that the masks select."""
    selected = selections(p, q)
    if selected is None:
        return None
    mask, *choices = selected
    where_not, where = (kl_divergence(*choice).expand(broadcast_batch(p, q)) for choice in choices)
    return torch.where(mask, where, where_not)


def selections(p: Any, q: Any) -> tuple[Tensor, tuple[Any, Any], tuple[Any, Any]] | None:
    """A mask, and the two distributions to compare where it is False and where it is True."""
    if not isinstance(p, MaskedMixture) and not isinstance(q, MaskedMixture):
        return None
    if not isinstance(p, MaskedMixture):
        choices = [(p, q.component0), (p, q.component1)]
    elif not isinstance(q, MaskedMixture):
        choices = [(p.component0, q), (p.component1, q)]
    elif _same_mask(p.mask, q.mask):
        choices = [(p.component0, q.component0), (p.component1, q.component1)]
    else:  # q's mask selects within either of p's components
        choices = [(p.component0, q), (p.component1, q)]
    chooser: Any = p if isinstance(p, MaskedMixture) else q
    return chooser.mask, choices[0], choices[1]


def _same_mask(a: Any, b: Any) -> bool:
    return a is b or (a.shape == b.shape and holds_everywhere(a == b, lambda equal: equal))
