"""What `SVI.run` returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class SVIResult:
    """The steps of one `run`. The parameters are in Pyro's parameter store.

    Attributes:
        losses: the loss of each step in nats, float64, shape (steps,); (steps, k) for a loss that
            is a tuple of k numbers.
        step_count: the steps of the whole fit, those of earlier runs and of a checkpoint included.
        stopped: why the run took fewer steps than it was asked for: "callback", "interrupt" or
            "error"; None if it did not.
    """

    losses: Tensor = field(repr=False)
    step_count: int
    stopped: str | None = None

    @classmethod
    def of(cls, losses: Sequence[Any], step_count: int, stopped: str | None) -> SVIResult:
        """From the losses as numbers."""
        return cls(torch.tensor(losses, dtype=torch.float64), step_count, stopped)
