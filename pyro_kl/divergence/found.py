"""A divergence or an entropy before it becomes an `Estimate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

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
