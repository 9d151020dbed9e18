"""Whether the values of a tensor can be read, and what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Number
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes


def holds_everywhere(x: Tensor | float, holds: Callable[[Any], Any]) -> bool:
    """Whether a condition holds for all elements of x; False where values cannot be read.

    The choice between two exact formulas may depend on values. Under `torch.func.vmap`,
    `torch.compile` and `torch.jit.trace` they cannot be read, and the caller then takes the
    formula that is right for all values.
    """
    if isinstance(x, Number):
        return bool(holds(x))
    if is_recorded():
        return False
    try:
        return bool(torch.as_tensor(holds(torch.as_tensor(x).detach())).all())
    except RuntimeError:  # raised by vmap, whose tensors have no single value
        return False


def can_be_read(x: Tensor) -> bool:
    """Whether the values of x are at hand and may be decided by."""
    return holds_everywhere(x, torch.ones_like)


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


@dataclass
class Choices:
    """What a recording has decided by the values at hand, to be decided alike in the next one.

    Attributes:
        made: the decisions, in their order.
        given: those of an earlier recording of the same step.
    """

    made: list[Any] = field(default_factory=list)
    given: Sequence[Any] = ()

    def next(self, decide: Callable[[], Any]) -> Any:
        """The next decision: the earlier one, or `decide()`, which runs without being recorded."""
        if len(self.made) < len(self.given):
            self.made.append(self.given[len(self.made)])
        else:
            with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad():
                self.made.append(decide())
        return self.made[-1]


#: One entry for each step of SVI that is being recorded.
_steps: list[Choices] = []


@contextmanager
def recording_step(choices: Choices) -> Iterator[None]:
    """While this context is open, a step of SVI is recorded, with its gradient.

    The operations are run again with other values. Derivatives of the second order are not taken,
    and a step whose loss is not finite is taken again without the record.
    """
    _steps.append(choices)
    try:
        yield
    finally:
        _steps.pop()


def choices_of_step() -> Choices | None:
    """The choices of the step of SVI that is being recorded; None if none is."""
    return _steps[-1] if _steps else None


def is_step_recorded() -> bool:
    """Whether a step of SVI is being recorded by `recording_step`."""
    return bool(_steps)


def is_recorded() -> bool:
    """Whether operations are recorded to be run again with other values.

    That is so in torch.compile, torch.jit.trace and `recording_step`. A transform of
    torch.func runs with the values at hand, each time anew.
    """
    return bool(_steps or torch.compiler.is_compiling() or is_jit_traced())


def is_jit_traced() -> bool:
    """Whether torch.jit.trace runs a function."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined]


def is_traced() -> bool:
    """Whether operations are recorded, or a transform of torch.func is active."""
    return is_recorded() or bool(torch._C._are_functorch_transforms_active())
