"""A precision, which is a matrix or, where only that is known or counts, its diagonal."""

from __future__ import annotations

import torch
from torch import Tensor


def as_matrix(precision: Tensor) -> Tensor:
    """Return a precision as a matrix."""
    return torch.diag(precision) if precision.dim() == 1 else precision


def as_diagonal(precision: Tensor) -> Tensor:
    """Return the diagonal of a precision."""
    return precision if precision.dim() == 1 else precision.diagonal()
