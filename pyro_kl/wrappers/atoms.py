"""A density against atoms, or atoms against a density: infinitely far, whatever they are."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import (
    Delta,
    Empirical,
    ImproperUniform,
    MaskedDistribution,
    MaskedMixture,
    Rejector,
    Unit,
    ZeroInflatedDistribution,
)
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily

from ..registry.provenance import Use, note
from ..registry.reduction import reduction
from ..registry.shapes import broadcast_batch, some_tensor
from ..registry.subclasses import is_a

#: Of these a support does not say it: other rules open them.
_UNKNOWN = (
    ImproperUniform, MaskedDistribution, MaskedMixture, Rejector, Unit, ZeroInflatedDistribution,
)  # fmt: skip


@reduction
def by_atoms(p: Distribution, q: Distribution) -> Tensor | None:
    """+inf, where one side has mass at points only and the other has none at any point."""
    of_p, of_q = is_atomic(p), is_atomic(q)
    if of_p is None or of_q is None or of_p == of_q:
        return None
    note(Use("infinite", __name__))
    anchor = some_tensor(p)
    dtype = torch.promote_types(anchor.dtype, some_tensor(q).dtype)
    return anchor.detach().new_full((), math.inf, dtype=dtype).expand(broadcast_batch(p, q))


def is_atomic(distribution: Any) -> bool | None:
    """Whether all mass is at points (True) or none is (False); None if it is not known.

    What is mapped or repeated is what its base is: the support of an image says nothing of it.
    """
    if isinstance(distribution, _UNKNOWN):
        return None
    if is_a(distribution, (Delta, Empirical)):
        return True
    base = getattr(distribution, "base_dist", None)
    if isinstance(distribution, MixtureSameFamily):
        base = distribution.component_distribution
    if base is not None:
        return is_atomic(base)
    try:
        support = distribution.support
    except (NotImplementedError, AttributeError):
        return None
    return None if support is None else bool(support.is_discrete)
