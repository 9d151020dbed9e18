"""Precision and shape of tensors: in what a formula is computed, and to what it is rounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

#: The parameters of a distribution, by torch's names.
Parameters: TypeAlias = Mapping[str, Tensor]


def in_float64(x: Tensor) -> Tensor:
    """X in float64 where the device has it; the formulas run in that precision."""
    return x if x.device.type == "mps" else x.to(torch.float64)


def promoted(tensors: Sequence[Tensor]) -> torch.dtype:
    """The dtype of a formula's value: torch's promotion of the parameters'."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        if tensor.dtype != dtype:
            dtype = torch.promote_types(dtype, tensor.dtype)
    # the parameters may be integers, as in Exponential(torch.tensor(2)); a KL is no integer
    return dtype if dtype.is_floating_point else torch.get_default_dtype()


def summed_to(x: Tensor, like: Tensor) -> Tensor:
    """A gradient, summed over the dims along which `like` was broadcast."""
    return x if x.shape == like.shape else x.sum_to_size(like.shape)
