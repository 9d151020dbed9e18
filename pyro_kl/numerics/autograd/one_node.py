"""A formula on matrices as one node of autograd's graph, with a backward pass written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..concrete import is_traced

#: From the inputs to the value and to what the backward pass wants to find again.
Forward = Callable[..., tuple[Tensor, tuple[Tensor, ...]]]
#: From the value's gradient, the inputs, what was kept (and may be overwritten), and which
#: inputs ask for a gradient.
Backward = Callable[
    [Tensor, Sequence[Tensor], Sequence[Tensor], Sequence[bool]], tuple[Tensor | None, ...]
]


def in_one_node(forward: Forward, backward: Backward) -> Callable[[Callable[..., Tensor]], Any]:
    """Decorate a composition of torch's operations with its fused forward and backward.

    Autograd keeps and replays what a composition's single operations ask for; a backward pass
    written by hand shares their products. The composition itself serves wherever a custom node
    cannot: second derivatives, forward mode, `torch.func`, `torch.compile`, `torch.jit.trace`.
    """

    def decorate(composition: Callable[..., Tensor]) -> Callable[..., Tensor]:
        class Node(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *inputs: Tensor) -> Tensor:
                value, ctx.kept = forward(*inputs)
                ctx.save_for_backward(*inputs)
                return value

            @staticmethod
            def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
                inputs, asked = ctx.saved_tensors, ctx.needs_input_grad
                if not torch.is_grad_enabled():
                    # its memory becomes the gradient's; a graph that is retained makes it again
                    kept = forward(*inputs)[1] if ctx.kept is None else ctx.kept
                    ctx.kept = None
                    return backward(grads[0], inputs, kept, asked)
                # create_graph=True: the derivative must itself be differentiable
                wanted = [x for x, needed in zip(inputs, asked, strict=True) if needed]
                value = composition(*inputs)
                found = iter(torch.autograd.grad(value, wanted, grads[0], create_graph=True))
                return tuple(next(found) if needed else None for needed in asked)

        # what `Function.apply` does before it is for functorch, which does not get here
        apply = super(torch.autograd.Function, Node).apply

        def function(*inputs: Tensor) -> Tensor:
            if is_traced() or forward_ad._current_level >= 0:
                return composition(*inputs)
            if torch.is_grad_enabled():
                for x in inputs:
                    if x.requires_grad:
                        return apply(*inputs)
            return forward(*inputs)[0]

        function.__name__ = function.__qualname__ = composition.__name__
        function.__doc__, function.__module__ = composition.__doc__, composition.__module__
        return function

    return decorate
