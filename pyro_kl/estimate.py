"""A number of nats that knows how it was made and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A KL divergence in nats.

    Attributes:
        value: nats, of the broadcast batch shape.
        standard_error: of the value, same shape; zero where the method is exact.
        method: "closed form", "exact sum", "infinite", "monte carlo (k1)", ...
        num_samples: number of samples behind it; 0 where the method is exact.
        reason: why this method, or where the formula comes from; what is short of a tolerance.
        error: for a quadrature, the estimate of its absolute error in nats; None where the
            method is exact up to rounding, or sampled.
        nodes: for a quadrature, the largest number of nodes.
    """

    value: Tensor
    standard_error: Tensor
    method: str
    num_samples: int = 0
    reason: str = ""
    error: Tensor | None = None
    nodes: int = 0

    @property
    def exact(self) -> bool:
        """Whether no sampling was involved."""
        return self.num_samples == 0

    def __str__(self) -> str:
        if self.value.numel() > 1:
            middle = f"{_short(self.value)} nats"
            if not self.exact:
                middle += f" +- {_short(self.standard_error)}"
        else:
            middle = f"{self.value.item():.6g} nats"
            if not self.exact:
                error = self.standard_error.item()
                middle = f"{self.value.item():.6g} +- {error:.2g} nats"
        return f"{middle}  [{self.method}{': ' + self.reason if self.reason else ''}]"

    def __repr__(self) -> str:
        return f"Estimate({self})"


def _short(values: Tensor) -> str:
    """A batch, readable on a line: a few numbers and the shape."""
    flat = values.detach().reshape(-1)
    head = ", ".join(f"{x:.4g}" for x in flat[:4].tolist())
    more = ", ..." if flat.numel() > 4 else ""
    return f"[{head}{more}] of shape {tuple(values.shape)}"
