"""Bayesian regression of counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..likelihoods.poisson import POISSON
from ..messages import see
from .arrays import as_vector
from .passes.rows import Rows
from .regression import Regression


class PoissonRegression(Regression):
    """Bayesian Poisson regression: ``y ~ Poisson(exp(bias + x . weights))``.

    Every expectation has a closed form. Parameters and attributes are those of
    `LogisticRegression`, without classes.
    """

    likelihood = POISSON

    def _target(self, y: Any, num_rows: int, dtype: torch.dtype) -> Tensor:
        counts = as_vector("y", y, num_rows, dtype)
        if not bool(self.likelihood.is_possible(counts, torch.zeros_like(counts)).all()):
            raise ValueError(f"y must have counts: {self.likelihood.possible}" + see("labels"))
        return counts

    def _take_target_of(self, rows: Any) -> None:
        target = getattr(rows, "target", None)  # rows need not tell anything of it
        if getattr(target, "classes", None) is not None:
            raise ValueError(
                "the target of the table has two classes; read it with counts=True" + see("labels")
            )

    def _start_of_bias(self, rows: Rows) -> float:
        """Return the log of the mean count of some rows, where the rates do not overflow."""
        chunk = rows.chunk(0)
        return math.log(max(float(chunk.target.double().mean()), 0.5))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the expected count of each row, with the posterior integrated out."""
        return self._predicted(X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the part of the deviance that is explained, D^2 of scikit-learn."""
        y = np.asarray(y, dtype=np.float64)

        def deviance(rate: NDArray[Any]) -> float:
            ratio = np.where(y > 0, y / rate, 1.0)
            return float(np.average(y * np.log(ratio) - y + rate, weights=sample_weight))

        return 1.0 - deviance(self.predict(X)) / deviance(
            np.full_like(y, np.average(y, weights=sample_weight))
        )
