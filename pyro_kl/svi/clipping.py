"""Limits on the gradient: on its norm, and on each of its elements."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

#: What `torch.nn.utils.clip_grad_norm_` adds to the norm, so that a zero gradient stays zero.
NORM_OFFSET = 1e-6


@dataclass(frozen=True)
class Clip:
    """The largest norm and the largest element of a gradient; the norm is limited first.

    Args:
        clip_norm: largest Euclidean norm, or None.
        clip_value: largest absolute value of an element, or None.
    """

    clip_norm: float | None = None
    clip_value: float | None = None

    def __bool__(self) -> bool:
        """Whether there is any limit."""
        return self.clip_norm is not None or self.clip_value is not None

    def in_place(self, params: Iterable[Tensor]) -> None:
        """Limit the gradients of `params`; the norm is that of all of them together."""
        params = list(params)
        if self.clip_norm is not None:
            clip_grad_norm_(params, self.clip_norm)
        if self.clip_value is not None:
            clip_grad_value_(params, self.clip_value)

    def __call__(self, grad: Tensor) -> Tensor:
        """The limited gradient: the same numbers as `in_place`, as a function of tensors."""
        if self.clip_norm is not None:
            norm = torch.linalg.vector_norm(grad)
            grad = grad * torch.clamp(self.clip_norm / (norm + NORM_OFFSET), max=1.0)
        if self.clip_value is not None:
            grad = grad.clamp(-self.clip_value, self.clip_value)
        return grad
