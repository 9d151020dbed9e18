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

    def as_estimate(self) -> Estimate:
        zero = torch.zeros_like(self.value.detach())
        return Estimate(
            self.value, zero, self.method, reason=self.source, error=self.error, nodes=self.nodes
        )
