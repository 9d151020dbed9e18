"""Loss and gradient of two ELBOs over the same draws, judged by the standard error of the gap."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pyro
import torch
from torch import Tensor


def gradients() -> dict[str, Tensor]:
    """The gradient of every parameter of Pyro's store, which is then forgotten."""
    found = {}
    for name, parameter in pyro.get_param_store().named_parameters():
        if parameter.grad is not None:
            found[name] = parameter.grad.detach().clone().reshape(-1)
            parameter.grad = None
    return found


def as_normal(t: float, freedom: int) -> float:
    """The |z| as unlikely as Student's |t|, to 0.01 or so (Wallace 1959)."""
    correction = (8 * freedom + 1) / (8 * freedom + 3)
    return correction * math.sqrt(freedom * math.log1p(t * t / freedom))


@dataclass
class Gaps:
    """Differences of two ELBOs, batch by batch.

    Attributes:
        draws: particles of one batch.
    """

    draws: int
    _rows: dict[str, list[Tensor]] = field(default_factory=dict)
    _sizes: dict[str, float] = field(default_factory=dict)

    def add(self, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
        """Keep the differences of one batch; a gradient that one side lacks is zero."""
        for name in {**ours, **theirs}:
            zero = torch.zeros_like(ours.get(name, theirs.get(name)))
            b = theirs.get(name, zero)
            self._rows.setdefault(name, []).append(ours.get(name, zero) - b)
            self._sizes[name] = max(self._sizes.get(name, 0.0), b.abs().max().item())

    @property
    def largest(self) -> float:
        """The largest difference of a batch, as a part of 1 + the size of what differs."""
        return max(
            float(torch.stack(rows).abs().max()) / (1 + self._sizes[name])
            for name, rows in self._rows.items()
        )

    def worst(self) -> tuple[float, str]:
        """The largest |z| of a mean difference, inf if one is not finite, and what differs."""
        worst, component = 0.0, "-"
        for name, rows in self._rows.items():
            gap = torch.stack(rows)
            # what happens in less than one draw of all is not in the sample, nor in its error
            unseen = (1 + self._sizes[name]) / (len(gap) * self.draws)
            error = (gap.var(0) / len(gap) + unseen**2).sqrt()
            z = as_normal((gap.mean(0) / error).abs().max().item(), len(gap) - 1)
            if not z <= worst:
                worst, component = (z if math.isfinite(z) else math.inf), name
        return worst, component
