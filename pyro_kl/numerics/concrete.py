"""What is known of values while a formula is still to be chosen."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Number
from typing import Any

import torch
from torch import Tensor


def holds_everywhere(x: Tensor | float, holds: Callable[[Any], Any]) -> bool:
    """Whether a condition holds for all of x, as far as values are to be had here.

    A choice between two exact routes may look at values where there are any; under
    `torch.func.vmap`, `torch.compile` and `torch.jit.trace` there are none, and the answer is
    False: the route that is right for all values is taken.
    """
    if isinstance(x, Number):
        return bool(holds(x))
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return False
    try:
        return bool(torch.as_tensor(holds(torch.as_tensor(x).detach())).all())
    except RuntimeError:  # how vmap says that there are no values
        return False


def is_constant(x: Tensor | float, value: float) -> bool:
    """Whether x is this number and nobody asks for its gradient."""
    if isinstance(x, Tensor) and x.requires_grad:
        return False
    return holds_everywhere(x, lambda v: v == value)


def is_traced() -> bool:
    """Whether something other than autograd looks at the operations themselves."""
    return bool(
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined]
        or torch._C._are_functorch_transforms_active()
    )
