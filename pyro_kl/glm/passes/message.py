"""The value of chunks as one vector, which ranks send to one another."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .statistics import Statistics


class Layout(NamedTuple):
    """How a value is laid out in its vector.

    Attributes:
        shapes: name -> shape of each field of statistics, None for a number; of a tensor, which
            has no fields, the name is empty.
        dtype: of the vector.
    """

    shapes: dict[str, tuple[int, ...] | None]
    dtype: torch.dtype

    @classmethod
    def of(cls, value: Tensor | Statistics) -> Layout:
        """The layout of a value."""
        shapes = {
            name: tuple(field.shape) if isinstance(field, Tensor) else None
            for name, field in fields_of(value).items()
        }
        return cls(shapes, _dtype(value))

    @property
    def length(self) -> int:
        """The number of elements of the vector."""
        return sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        return [math.prod(shape or ()) for shape in self.shapes.values()]

    def value(self, vector: Tensor) -> Tensor | Statistics:
        """The value that a vector holds.

        Its tensors are copies: the last bits of a product depend on where in memory a vector
        begins, and a view begins anywhere.
        """
        parts = zip(self.shapes.items(), vector.split(self._sizes), strict=True)
        fields = {
            name: part.item() if shape is None else part.view(shape).clone()
            for (name, shape), part in parts
        }
        return fields[""] if "" in fields else Statistics(**fields)


def fields_of(value: Tensor | Statistics) -> dict[str, Any]:
    """The numbers and tensors that a value consists of, by name."""
    return {"": value} if isinstance(value, Tensor) else vars(value)


def vector_of(value: Tensor | Statistics) -> Tensor:
    """The vector of a value."""
    dtype = _dtype(value)
    fields = fields_of(value).values()
    return torch.cat([torch.as_tensor(field, dtype=dtype).reshape(-1) for field in fields])


def _dtype(value: Tensor | Statistics) -> torch.dtype:
    return value.dtype if isinstance(value, Tensor) else value.gradient.dtype
