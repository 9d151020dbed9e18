"""What `SVI.run` returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..results.result import Result
from ..results.table import Table

#: So many lines the losses of a run are printed on.
LINES = 10


@dataclass(frozen=True, repr=False)
class SVIResult(Result):
    """The steps of one `run`. The parameters are in Pyro's parameter store.

    It prints as the means of the losses over tenths of the run.

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

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary for each step: its number, and its loss in nats."""
        losses = self.losses.tolist()
        return [{"step": i, "loss": loss} for i, loss in enumerate(losses, self._first)]

    @property
    def _first(self) -> int:
        """The number of the run's first step."""
        return self.step_count - len(self.losses) + 1

    def _table(self) -> Table:
        first = self._first
        parts = torch.arange(len(self.losses)).chunk(LINES)
        rows = [
            [f"{first + int(part[0]):,} to {first + int(part[-1]):,}", _mean(self.losses[part])]
            for part in parts
            if len(part)
        ]
        steps = f"{len(self.losses):,} step{'s' if len(self.losses) != 1 else ''}"
        ended = f", ended by {_ENDED[self.stopped]}" if self.stopped else ""
        return Table(("steps", "mean loss"), rows, "lr", [f"{steps}{ended}; nats"])


_ENDED = {"callback": "a callback", "interrupt": "an interrupt", "error": "an error"}


def _mean(losses: Tensor) -> str:
    """The mean over the steps; of a loss that is a tuple, the mean of each number."""
    return ", ".join(f"{x:.6g}" for x in losses.mean(0).reshape(-1).tolist())
