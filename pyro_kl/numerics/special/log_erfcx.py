"""The logarithm of the scaled complementary error function, with every derivative and vmap."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

#: From here on the asymptotic series of the slope is exact to 1e-12.
_FAR = 50.0


def log_erfcx(x: Tensor) -> Tensor:
    """Log of exp(x^2) erfc(x); torch's erfcx has no rule for vmap and one derivative only."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return torch.log(torch.special.erfcx(x))
    return _LogErfcx.apply(x)


def _slope(x: Tensor) -> Tensor:
    """d/dx: the function itself again, so that it can be differentiated as often as one likes."""
    far = x > _FAR
    near = torch.where(far, 1.0, x)
    r = 1 / torch.where(far, x, _FAR) ** 2
    series = -(1 - r * (1 - r * (2.5 - r * 9.25))) / torch.where(far, x, _FAR)
    exact = 2 * near - 2 / math.sqrt(math.pi) * torch.exp(-log_erfcx(near))
    return torch.where(far, series, exact)


class _LogErfcx(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.log(torch.special.erfcx(x))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * _slope(*ctx.saved_tensors)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent * _slope(*ctx.saved_tensors)

    @staticmethod
    def vmap(_: Any, in_dims: tuple[int | None], x: Tensor) -> tuple[Tensor, int | None]:
        return log_erfcx(x), in_dims[0]
