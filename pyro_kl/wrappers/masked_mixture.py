"""MaskedMixture: one distribution where a mask is False, another one where it is True."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import MaskedMixture
from torch import Tensor
from torch.distributions import kl_divergence

from ..numerics.concrete import holds_everywhere
from ..registry.reduction import reduction
from ..registry.shapes import broadcast_batch


@reduction
def by_selection(p: Any, q: Any) -> Tensor | None:
    """Element by element the KL of the components that the masks select."""
    if not isinstance(p, MaskedMixture) and not isinstance(q, MaskedMixture):
        return None
    shape = broadcast_batch(p, q)
    if not isinstance(p, MaskedMixture):
        choices = [(p, q.component0), (p, q.component1)]
    elif not isinstance(q, MaskedMixture):
        choices = [(p.component0, q), (p.component1, q)]
    elif _same_mask(p.mask, q.mask):
        choices = [(p.component0, q.component0), (p.component1, q.component1)]
    else:  # q's mask selects within either of p's components
        choices = [(p.component0, q), (p.component1, q)]
    chooser: Any = p if isinstance(p, MaskedMixture) else q
    where_not, where = (kl_divergence(*choice).expand(shape) for choice in choices)
    return torch.where(chooser.mask, where, where_not)


def _same_mask(a: Any, b: Any) -> bool:
    return a is b or (a.shape == b.shape and holds_everywhere(a == b, lambda equal: equal))
