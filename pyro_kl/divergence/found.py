"""A divergence or an entropy before it becomes an `Estimate`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..registry.shapes import broadcast_batch, nan_rows, some_tensor
from ..wrappers.masked import both, check_masks, unmasked
from .estimate import Estimate


class Found(NamedTuple):
    """A divergence, how it was found, and of an integral the error and the number of nodes."""

    value: Tensor
    method: str
    source: str
    error: Tensor | None = None
    nodes: int = 0

    def changed(self, change: Callable[[Tensor], Tensor]) -> Found:
        """The same change made to the value and to the error."""
        error = None if self.error is None else change(self.error)
        return self._replace(value=change(self.value), error=error)

    def where(self, mask: Tensor, other: Found, shape: torch.Size) -> Found:
        """This one where the mask holds, the other one elsewhere."""
        errors = self.error, other.error
        error = None
        if errors[0] is not None or errors[1] is not None:
            mine, theirs = (torch.zeros(()) if x is None else x for x in errors)
            error = torch.where(mask, mine, theirs).expand(shape)
        methods, sources = (
            " and ".join(dict.fromkeys(pair))
            for pair in ((self.method, other.method), (self.source, other.source))
        )
        value = torch.where(mask, self.value.expand(shape), other.value.expand(shape))
        return Found(value, methods, sources, error, max(self.nodes, other.nodes))

    def as_estimate(self) -> Estimate:
        zero = torch.zeros_like(self.value.detach())
        return Estimate(
            self.value, zero, self.method, reason=self.source, error=self.error, nodes=self.nodes
        )


def of_one_or_masked(
    p: Distribution,
    q: Distribution,
    name: str,
    inner: Callable[[Distribution, Distribution], Found],
) -> Found | None:
    """A divergence that is 0 between p and itself, and where the masks say so; None elsewhere.

    Args:
        p: the first distribution.
        q: the second one.
        name: of the divergence.
        inner: the divergence of distributions without masks.
    """
    shape = broadcast_batch(p, q)
    if p is q:
        nothing = some_tensor(p).detach().new_zeros(()).expand(shape)
        return Found(torch.where(nan_rows(p), math.nan, nothing), "closed form", "p and q are one")
    (bare_p, p_mask), (bare_q, q_mask) = unmasked(p), unmasked(q)
    if bare_p is p and bare_q is q:
        return None
    check_masks(p, q, p_mask, q_mask, name)
    mask = torch.as_tensor(both(p_mask, q_mask))
    return inner(bare_p, bare_q).changed(lambda x: torch.where(mask, x.expand(shape), 0.0))
