"""Draws from products of densities that are given by their logarithms: a backend of `opt_einsum`.

Pyro's backend draws from the sums of its backend for logarithms, which underflow (`log_einsum`).
"""

from __future__ import annotations

from typing import Any

from pyro.ops import packed
from pyro.ops.einsum.adjoint import transpose
from pyro.ops.einsum.torch_sample import _EinsumBackward
from pyro.ops.einsum.util import Tensordot
from pyro.ops.rings import SampleRing

from . import log_einsum

__all__ = ["Draws", "einsum", "tensordot", "transpose"]


def einsum(equation: str, *factors: Any) -> Any:
    """The logarithm of the sum of the factors' product, which remembers how to draw from it.

    Args:
        equation: as of `torch.einsum`.
        factors: logarithms, packed.
    """
    equation = packed.rename_equation(equation, *factors)
    result: Any = log_einsum.einsum(equation, *factors)
    result._pyro_dims = equation.split("->")[1]
    if any(hasattr(factor, "_pyro_backward") for factor in factors):
        result._pyro_backward = _EinsumBackward(result._pyro_dims, factors)
    return result


tensordot = Tensordot(einsum)


class Draws(SampleRing):
    """Pyro's ring of sums and draws, with this backend."""

    _backend = __name__
