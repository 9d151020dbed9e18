"""Whether the values of a tensor can be read, and what they are."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Number
from typing import Any

import torch
from torch import Tensor


def holds_everywhere(x: Tensor | float, holds: Callable[[Any], Any]) -> bool:
    """Whether a condition holds for all elements of x; False where values cannot be read.

    The choice between two exact formulas may depend on values. Under `torch.func.vmap`,
    `torch.compile` and `torch.jit.trace` they cannot be read, and the caller then takes the
    formula that is right for all values.
    """
    if isinstance(x, Number):
        return bool(holds(x))
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return False
    try:
        return bool(torch.as_tensor(holds(torch.as_tensor(x).detach())).all())
    except RuntimeError:  # raised by vmap, whose tensors have no single value
        return False


def is_constant(x: Tensor | float, value: float) -> bool:
    """Whether x equals `value` and does not require grad."""
    if isinstance(x, Tensor) and x.requires_grad:
        return False
    return holds_everywhere(x, lambda v: v == value)


def is_same(x: Tensor | Number, y: Tensor | Number) -> bool:
    """Whether x and y are one tensor, or equal everywhere without requiring grad.

    Two tensors that are equal now but require grad have a derivative each.
    """
    if x is y:
        return True
    if any(isinstance(each, Tensor) and each.requires_grad for each in (x, y)):
        return False
    try:
        return holds_everywhere(x == y, lambda equal: equal)
    except RuntimeError:  # shapes that do not broadcast
        return False


def is_recorded() -> bool:
    """Whether operations are recorded to be run again with other values.

    That is so in torch.compile and torch.jit.trace. A transform of torch.func runs with the
    values at hand, each time anew.
    """
    return bool(
        torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    )


def is_traced() -> bool:
    """Whether operations are recorded, or a transform of torch.func is active."""
    return is_recorded() or bool(torch._C._are_functorch_transforms_active())
