"""Rows held out of a fit at random, and how well a posterior predicts them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ..likelihoods.likelihood import Likelihood
from ..messages import see
from ..results.result import Result
from ..results.table import Table
from .passes.design import Memory
from .passes.rows import Chunk, Rows, RowsOf, never_empty
from .posterior.posterior import Posterior


class RandomPart(RowsOf):
    """The rows of a random part, or all others; chunk by chunk, so that any table has parts.

    Args:
        rows: of which the part is taken.
        fraction: the share of the part, in (0, 1).
        seed: of the draw. The same seed gives the same part, whatever reads it.
        others: whether the rows are those outside of the part.
    """

    def __init__(
        self, rows: Rows, fraction: float, seed: int = 0, *, others: bool = False
    ) -> None:
        if not 0.0 < fraction < 1.0:
            raise ValueError(
                f"the fraction must be between 0 and 1, got {fraction}" + see("option")
            )
        super().__init__(rows)
        self._fraction, self._seed, self._others = fraction, seed, others

    is_in_memory = False  # a chunk is copied when it is read

    @property
    def num_rows(self) -> int:
        """About the number of rows: what is expected of the draw."""
        share = 1.0 - self._fraction if self._others else self._fraction
        return round(share * self._rows.num_rows)

    def chunk(self, index: int) -> Chunk:
        """Return what of one chunk is in the part."""
        whole = self._rows.chunk(index)
        draws = np.random.default_rng((self._seed, index)).random(len(whole.target))
        inside = torch.from_numpy((draws < self._fraction) != self._others)
        features = whole.features.T[:, inside].T  # the columns stay contiguous
        weight = None if whole.weight is None else whole.weight[inside]
        return never_empty(Chunk(features, whole.target[inside], weight))


@dataclass(frozen=True, repr=False)
class Score(Result):
    """How well a posterior predicts rows.

    Attributes:
        weight: the number of rows, or the sum of their weights.
        accuracy: the share whose more probable class is the true one.
        log_loss: the mean of minus the log probability of the true class, nats.
        base_log_loss: the same if the probability of 1 were the share of the ones.
    """

    weight: float
    accuracy: float
    log_loss: float
    base_log_loss: float

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dictionary."""
        return [asdict(self)]

    def _table(self) -> Table:
        row = [f"{self.weight:,g}", f"{self.accuracy:.2%}"]
        row += [f"{loss:.4f}" for loss in (self.log_loss, self.base_log_loss)]
        return Table(("rows", "accuracy", "log loss", "of the share alone"), [row], "rrrr")


def score(rows: Rows, likelihood: Likelihood, posterior: Posterior) -> Score:
    """Return how well a posterior predicts rows with a target of 0 and 1.

    Args:
        rows: where the data are.
        likelihood: of the fit.
        posterior: of the coefficients of the same features, in the units of the rows.

    Raises:
        ValueError: there are no rows.
    """
    memory = Memory()
    weight = ones = right = loss = 0.0
    for index in range(rows.num_chunks):
        chunk = rows.chunk(index)
        design = memory.design(chunk.features)
        one = likelihood.predict(*design.predictor(posterior.loc, posterior.covariance)).double()
        target = chunk.target.double()
        count = torch.ones_like(target) if chunk.weight is None else chunk.weight.double()
        true = torch.where(target == 1.0, one, 1.0 - one)
        weight += float(count.sum())
        ones += float(count @ target)
        right += float(count @ (true > 0.5).double())
        loss -= float(count @ true.log())
    if not weight:
        raise ValueError("no rows are held out: ask for a larger fraction" + see("option"))
    share = ones / weight
    base = -sum(q * math.log(q) for q in (share, 1.0 - share) if q > 0.0)
    return Score(weight, right / weight, loss / weight, base)
