"""Sums of products of densities that are given by their logarithms: a backend of `opt_einsum`.

Pyro's backend subtracts from each factor its own maximum, exponentiates it, and multiplies. Where
the factors have their maxima at different values, as a component with a prior of 0 and a datum far
from all others, every product is below the smallest float, and the logarithm of the sum is -inf.
Here the logarithms are added first, and their sum has its maximum subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from pyro.ops.einsum import torch_log
from pyro.ops.einsum.torch_log import transpose
from pyro.ops.einsum.util import Tensordot
from pyro.ops.rings import LogRing
from pyro.ops.special import safe_log
from torch import Tensor

__all__ = ["LogSums", "einsum", "tensordot", "transpose"]

#: Up to this size the product of all factors is made, also where no factor has this size itself.
_SMALL = 2**14


def einsum(equation: str, *factors: Tensor) -> Tensor:
    """The logarithm of the sum of the factors' product, for logarithms of factors.

    Args:
        equation: as of `torch.einsum`.
        factors: logarithms.
    """
    inputs, output = equation.split("->")
    dims = inputs.split(",")
    sizes = {
        dim: size
        for of, x in zip(dims, factors, strict=True)
        for dim, size in zip(of, x.shape, strict=True)
    }
    size = math.prod(sizes.values())
    if size > max(_SMALL, *(x.numel() for x in factors)):
        return torch_log.einsum(equation, *factors)
    summed = [dim for dim in sizes if dim not in output]
    order = {dim: place for place, dim in enumerate([*output, *summed])}
    aligned = [_aligned(x, of, order) for of, x in zip(dims, factors, strict=True)]
    total = sum(aligned[1:], start=aligned[0])
    if not summed:
        return total
    over = tuple(range(-len(summed), 0))
    largest = total.detach().amax(over, keepdim=True)
    largest = largest.clamp(min=torch.finfo(total.dtype).min)  # -inf minus -inf would be nan
    return safe_log((total - largest).exp().sum(over)) + largest.squeeze(over)


def _aligned(x: Tensor, dims: str, order: Mapping[str, int]) -> Tensor:
    """A factor with all dims in their order, of size 1 where it has none."""
    x = x.permute(sorted(range(x.dim()), key=lambda i: order[dims[i]]))
    return x[tuple(slice(None) if dim in dims else None for dim in order)]


tensordot = Tensordot(einsum)


class LogSums(LogRing):
    """Pyro's ring of sums and products of densities, with this backend."""

    _backend = __name__
