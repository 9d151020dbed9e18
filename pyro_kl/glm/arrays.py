"""Features, targets and weights of users, as tensors: numpy, pandas, torch, scipy's CSR."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..messages import see, without_link


def as_features(X: Any) -> tuple[Any, tuple[str, ...] | None]:
    """Return the features, nothing copied if they can be used as they are, and their names.

    Args:
        X: shape ``(N, D)``: an array of numpy, a data frame of numbers, a tensor, or a sparse
            matrix of scipy. float32 stays; everything else becomes float64.

    Returns:
        A dense tensor, or a matrix of scipy in rows (CSR), of finite numbers; the names of a data
        frame's columns, else None.

    Raises:
        ValueError: the shape is not ``(N, D)``, a value is not finite or not a number.
    """
    names = tuple(map(str, X.columns)) if hasattr(X, "columns") else None
    if names is not None and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"X has more than one column {twice!r}; rename one" + see("other-columns")
        )
    if hasattr(X, "tocsr"):
        matrix = X.tocsr()
        if matrix.dtype not in (np.float32, np.float64):
            matrix = matrix.astype(np.float64)
        _check_finite(torch.from_numpy(matrix.data).sum(), names, None)
        return matrix, names
    if isinstance(X, Tensor) and X.layout != torch.strided:
        raise ValueError(
            "X is a sparse tensor; give a sparse matrix of scipy, or X.to_dense()"
            + see("features")
        )
    if np.ma.is_masked(X):
        raise ValueError("X has masked values; drop or impute them" + see("features"))
    features = X.detach() if isinstance(X, Tensor) else _tensor(X)
    if features.dtype not in (torch.float32, torch.float64):
        features = features.double()
    if features.dim() != 2 or 0 in features.shape:
        raise ValueError(
            f"X must have shape (N, D) with at least one row and one column, got "
            f"{tuple(features.shape)}" + see("features")
        )
    if features.stride(0) != 1 and features.stride(1) != 1:
        features = features.contiguous()
    _check_finite(features.sum(), names, features)
    return features, names


def _tensor(values: Any) -> Tensor:
    try:
        array = np.asarray(values)
        if array.dtype.kind == "c":
            raise TypeError("complex numbers" + see("features"))
        if array.dtype.kind not in "fiub" or array.dtype == np.longdouble:
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"X has values that are no numbers ({without_link(error)}); encode them, or pass the "
            "table to pyro_kl.glm.read_table, which does" + see("features")
        ) from None
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if any(stride < 0 for stride in array.strides):
        array = array.copy()
    with warnings.catch_warnings():
        # Nothing writes to data: a file that is mapped to be read is used as it is.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def _check_finite(total: Tensor, names: Sequence[str] | None, features: Tensor | None) -> None:
    """Raise if a value is nan or infinite; a sum of finite ones may be infinite too."""
    if torch.isfinite(total):
        return
    where = ""
    if features is not None:
        bad = (~torch.isfinite(features)).nonzero()
        if not len(bad):
            return
        row, column = bad[0].tolist()
        where = f" (row {row}, column {names[column] if names else column})"
    raise ValueError(
        f"X has values that are missing or infinite{where}; drop or impute them" + see("features")
    )


def as_vector(name: str, values: Any, num_rows: int, dtype: torch.dtype) -> Tensor:
    """Return a vector of one finite number for each row.

    Raises:
        ValueError: there are more or fewer, or one is not finite.
    """
    try:
        vector = values.detach() if isinstance(values, Tensor) else _tensor(values)
    except ValueError:
        raise ValueError(f"{name} has values that are no numbers" + see("labels")) from None
    if vector.dim() == 2 and vector.shape[1] == 1:
        vector = vector[:, 0]
    if vector.shape != (num_rows,):
        raise ValueError(
            f"{name} must have shape ({num_rows},) like X, got {tuple(vector.shape)}"
            + see("labels")
        )
    vector = vector.to(dtype)
    if not torch.isfinite(vector).all():
        raise ValueError(f"{name} has values that are missing or infinite" + see("labels"))
    return vector


def as_weight(values: Any, num_rows: int, dtype: torch.dtype) -> Tensor | None:
    """Return the weights of the rows, or None.

    Raises:
        ValueError: a weight is negative, or all are 0.
    """
    if values is None:
        return None
    weight = as_vector("sample_weight", values, num_rows, dtype)
    if bool((weight < 0).any()):
        raise ValueError("sample_weight has negative values" + see("labels"))
    if not bool((weight > 0).any()):
        raise ValueError(
            "all weights of sample_weight are 0: there is nothing to fit" + see("labels")
        )
    return weight
