"""The dtype in which a formula is computed, and the dtype and shape of its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

#: The parameters of a distribution, by torch's names.
Parameters: TypeAlias = Mapping[str, Tensor]


def in_float64(x: Tensor) -> Tensor:
    """`x` in float64, in which the formulas are computed; unchanged on MPS, which has none."""
    return x if x.device.type == "mps" else x.to(torch.float64)


def promoted(tensors: Sequence[Tensor]) -> torch.dtype:
    """The dtype of a formula's value: torch's promotion of the parameters'."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        if tensor.dtype != dtype:
            dtype = torch.promote_types(dtype, tensor.dtype)
    # integer parameters, as in Exponential(torch.tensor(2)): the KL is a float
    return dtype if dtype.is_floating_point else torch.get_default_dtype()


def common_shape(*shapes: torch.Size) -> torch.Size:
    """The shape that all broadcast to; torch's own function takes 20 us if they are equal."""
    first = shapes[0]
    for shape in shapes:
        if shape != first:
            return torch.broadcast_shapes(*shapes)
    return torch.Size(first)


def summed_to(x: Tensor, like: Tensor) -> Tensor:
    """The gradient `x` in the shape of `like`: summed over the dimensions that were broadcast."""
    return x if x.shape == like.shape else x.sum_to_size(like.shape)
