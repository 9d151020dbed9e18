"""Targets of two values: which of them is 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..messages import see


def two_classes(y: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the two values in order, and where the target has the second.

    Args:
        y: shape ``(N,)``: numbers, booleans or strings.

    Raises:
        ValueError: there are not two values, or some are missing.
    """
    values = np.asarray(y)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ValueError(f"y must have shape (N,), got {values.shape}" + see("labels"))
    if values.size == 0:
        raise ValueError("y has no rows" + see("labels"))
    if values.dtype.kind in "fiub":
        low, high = values.min(), values.max()
        is_second = values == high
        if low != low or high != high:
            raise ValueError("y has missing values (nan); drop those rows" + see("labels"))
        if low != high and bool((is_second | (values == low)).all()):
            return np.array([low, high]), is_second
    elif any(map(_is_missing, values.tolist())):
        raise ValueError("y has missing values; drop those rows" + see("labels"))
    try:
        classes = np.unique(values)
    except TypeError:
        kinds = ", ".join(sorted({type(value).__name__ for value in values.tolist()}))
        raise ValueError(
            f"y mixes values of different types ({kinds}); give one type" + see("labels")
        ) from None
    some = ", ".join(str(value) for value in classes[:4].tolist())
    if len(classes) == 1:
        raise ValueError(f"y has one class only ({some}); two are needed" + see("labels"))
    if len(classes) > 2:
        more = ", ..." if len(classes) > 4 else ""
        raise ValueError(
            f"y must have two classes, got {len(classes)} ({some}{more}); more than two need one "
            "fit each" + see("labels")
        )
    return classes, values == classes[1]


def _is_missing(value: Any) -> bool:
    """Whether a value is None, nan, or pandas' NA, whose comparisons are no booleans."""
    is_same = value == value
    return value is None or not isinstance(is_same, bool | np.bool_) or not is_same
