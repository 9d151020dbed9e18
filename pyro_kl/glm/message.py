"""The value of chunks as one vector, which ranks send to one another."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .statistics import Statistics

#: The fields of statistics that are numbers.
NUMBERS = ("weight", "log_likelihood", "largest_variance")


class Layout(NamedTuple):
    """How a value is laid out in its vector.

    Attributes:
        shape: of the tensor, or of the precision of statistics.
        dtype: of the vector.
        is_statistics: whether the vector starts with numbers and a gradient.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    is_statistics: bool

    @classmethod
    def of(cls, value: Tensor | Statistics) -> Layout:
        """The layout of a value."""
        tensor = value if isinstance(value, Tensor) else value.precision
        return cls(tuple(tensor.shape), tensor.dtype, tensor is not value)

    @property
    def length(self) -> int:
        """The number of elements of the vector."""
        start = len(NUMBERS) + self.shape[0] if self.is_statistics else 0
        return start + math.prod(self.shape)

    def value(self, vector: Tensor) -> Tensor | Statistics:
        """The value that a vector holds; its tensors are views."""
        if not self.is_statistics:
            return vector.view(self.shape)
        first, start = len(NUMBERS), len(NUMBERS) + self.shape[0]
        numbers = dict(zip(NUMBERS, vector[:first].tolist(), strict=True))
        precision = vector[start:].view(self.shape)
        return Statistics(gradient=vector[first:start], precision=precision, **numbers)


def vector_of(value: Tensor | Statistics) -> Tensor:
    """The vector of a value."""
    if isinstance(value, Tensor):
        return value.reshape(-1)
    numbers = value.gradient.new_tensor([getattr(value, name) for name in NUMBERS])
    return torch.cat([numbers, value.gradient, value.precision.reshape(-1)])
