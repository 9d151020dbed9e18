"""Awkward arrays: features, a target and weights, and the error if they are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import torch


@dataclass(frozen=True)
class Arrays:
    """What is given to a fit, and a part of the error where it is refused.

    A fit that does not come to its optimum within the usual number of passes says so.
    """

    features: Any
    target: Any
    weight: Any = None
    error: str | None = None
    converges: bool = True


def features(num_rows: int = 80, num_features: int = 3) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((num_rows, num_features))


X = features()
Y = (X[:, 0] + np.random.default_rng(2).logistic(size=len(X)) > 0).astype(int)
WIDE = features(20, 60)
HALF = np.arange(len(X)) % 2


def with_value(value: float) -> np.ndarray:
    table = X.copy()
    table[7, 1] = value
    return table


ARRAYS = {
    # --- data for which maximum likelihood has no answer, or a bad one
    "separable": Arrays(X, X[:, 0] > 0),
    "separable by far": Arrays(1e4 * X, X[:, 0] > 0, converges=False),
    "separable by one row": Arrays(np.arange(80.0).reshape(-1, 1), np.arange(80) > 78),
    "collinear": Arrays(np.column_stack([X, X @ [1.0, 2.0, 3.0]]), Y),
    "constant columns": Arrays(np.column_stack([X, np.full(len(X), 3.0), np.zeros(len(X))]), Y),
    "duplicate columns": Arrays(np.column_stack([X, X, X]), Y),
    "more columns than rows": Arrays(WIDE, WIDE[:, 0] > 0),
    "two rows": Arrays(X[:2], [0, 1]),
    "one positive row": Arrays(X, np.arange(len(X)) == 11),
    "a target that is noise": Arrays(X, HALF),
    # --- scales
    "scales from 1e-8 to 1e8": Arrays(X * [1e-8, 1.0, 1e8], Y),
    "tiny": Arrays(1e-8 * X, Y),
    "huge": Arrays(1e8 * X, Y),
    "far from 0": Arrays(X + 1e6, Y),
    "an outlier": Arrays(with_value(1e9), Y, converges=False),
    "denormal": Arrays(X * 1e-310, Y),
    # --- weights
    "weights of 0": Arrays(X, Y, HALF.astype(float)),
    "weights from 1e-8 to 1e8": Arrays(X, Y, np.where(HALF, 1e-8, 1e8)),
    "weights that are integers": Arrays(X, Y, HALF + 1),
    "negative weights": Arrays(X, Y, HALF - 0.5, error="weight"),
    "weights that are not numbers": Arrays(X, Y, np.full(len(X), np.nan), error="weight"),
    "too few weights": Arrays(X, Y, np.ones(3), error="weight"),
    # --- types
    "float32": Arrays(X.astype(np.float32), Y),
    "float16": Arrays(X.astype(np.float16), Y),
    "integers": Arrays((10 * X).astype(np.int8), Y),
    "booleans": Arrays(X > 0, Y),
    "a list": Arrays(X.tolist(), Y.tolist()),
    "columns next to each other": Arrays(np.asfortranarray(X), Y),
    "every second row, backwards": Arrays(np.repeat(X, 2, axis=0)[::-2], Y[::-1]),
    "big endian": Arrays(X.astype(">f8"), Y),
    "torch": Arrays(torch.from_numpy(X), torch.from_numpy(Y)),
    "torch float32": Arrays(torch.from_numpy(X).float(), torch.from_numpy(Y)),
    "pandas": Arrays(pd.DataFrame(X, columns=["a", "b", "c"]), pd.Series(Y)),
    "sparse": Arrays(scipy.sparse.csr_matrix(X * (X > 0)), Y),
    "sparse with an empty column": Arrays(scipy.sparse.csr_matrix(X * [1.0, 0.0, 1.0]), Y),
    # --- labels
    "labels -1 and 1": Arrays(X, 2 * Y - 1),
    "labels that are text": Arrays(X, np.where(Y == 1, "yes", "no")),
    "labels that are booleans": Arrays(X, Y == 1),
    "labels of pandas": Arrays(X, pd.Series(np.where(Y == 1, "a", "b"), dtype="category")),
    "one class": Arrays(X, np.zeros(len(X)), error="class"),
    "one row": Arrays(X[:1], [1], error="class"),
    "three classes": Arrays(X, np.arange(len(X)) % 3, error="3"),
    "a missing label": Arrays(X, np.where(np.arange(len(X)) == 3, np.nan, Y), error="missing"),
    # --- what cannot be fitted
    "a missing value": Arrays(with_value(np.nan), Y, error="finite"),
    "an infinite value": Arrays(with_value(np.inf), Y, error="finite"),
    "no rows": Arrays(X[:0], Y[:0], error="row"),
    "one dimension": Arrays(X[:, 0], Y, error="shape"),
    "three dimensions": Arrays(X[:, :, None], Y, error="shape"),
    "lengths that differ": Arrays(X, Y[:-1], error="shape"),
    "two columns of one name": Arrays(
        pd.DataFrame(X, columns=["a", "b", "a"]), Y, error="more than one column 'a'; rename one"
    ),
    "text": Arrays(X.astype(str).astype(object) + "x", Y, error="number"),
}
