"""Elementwise functions whose partial derivatives are written by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, fx

from ..concrete import is_step_recorded, is_traced
from .tracer import BlockKernel, Kernels, Partials

Elementwise = Callable[..., Tensor]


def float32_form(form: Elementwise) -> Callable[[Elementwise], Elementwise]:
    """Decorate a function with the form that a program uses for float32 parameters.

    Two float32 numbers are equal or differ by at least 6e-8 of themselves. They are carried in
    float64, so that the difference of two terms that agree to first order keeps eight digits: no
    series is needed. The form must return what the function returns, rounded to float32.
    """

    def decorate(function: Elementwise) -> Elementwise:
        @wraps(function)
        def chosen(*inputs: Tensor) -> Tensor:
            for x in inputs:
                if isinstance(x, fx.Proxy):
                    return (form if x.tracer.float32 else function)(*inputs)
            return function(*inputs)

        return chosen

    return decorate


def with_partials(
    partials: Partials, plain: Elementwise | None = None
) -> Callable[[Elementwise], Any]:
    """Decorate an elementwise function of tensors with its partial derivatives.

    Under `torch.compile` and `torch.jit.trace` the function itself is used, operation by
    operation: the first fuses it, the second cannot record a custom function.

    Args:
        partials: from the same arguments to the derivative by each; None for an argument that
            the others determine.
        plain: another composition that is used there, for a function of which autograd would
            return a nan gradient.
    """

    def decorate(value: Elementwise) -> Elementwise:
        return _custom(value, partials, plain)

    return decorate


def value_and_partials(
    block: int, float32: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., tuple[Tensor, ...]]], Any]:
    """Decorate a function that computes its value and its partial derivatives at once.

    Args:
        block: how many numbers are computed at a time. The largest tensor inside should stay
            below 128 KiB, from where on malloc requests new pages for each.
        float32: for a program of float32 parameters, another `block` and keyword arguments of
            the function.

    Returns:
        A decorator of `function(*flat, slopes)`: of flat tensors of one length, to
        (value, *partials), or (value,) without slopes.
    """

    def decorate(function: Callable[..., tuple[Tensor, ...]]) -> Elementwise:
        name = f"{function.__module__}.{function.__name__}".replace(".", "_")

        def kernels(name: str, *, block: int = block, **options: Any) -> Kernels:
            return Kernels(
                BlockKernel(partial(function, slopes=False, **options), name, block),
                BlockKernel(partial(function, slopes=True, **options), f"{name}_slopes", block),
            )

        given = kernels(name)
        in_float32 = given if float32 is None else kernels(f"{name}_float32", **float32)

        @wraps(function)
        def value(*inputs: Tensor) -> Tensor:
            return given.value.whole(*inputs)[0]

        def partials(*inputs: Tensor) -> Any:
            return given.with_partials.whole(*inputs)[1:]

        return _custom(value, partials, None, given, in_float32)

    return decorate


def _custom(
    value: Elementwise,
    partials: Partials,
    plain: Elementwise | None,
    kernels: Kernels | None = None,
    in_float32: Kernels | None = None,
) -> Elementwise:
    """The function that autograd, `torch.func` and the tracer differentiate by `partials`."""

    class Custom(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Tensor:
            found = [value(*inputs)] if kernels is None else kernels.with_partials(*inputs)
            ctx.save_for_backward(*inputs, *found[1:])
            ctx.save_for_forward(*inputs)
            return found[0]

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
            inputs = ctx.saved_tensors[: len(ctx.needs_input_grad)]
            slopes = ctx.saved_tensors[len(inputs) :]
            if not slopes or torch.is_grad_enabled():
                slopes = partials(*inputs)
            return tuple(None if d is None else grads[0] * d for d in slopes)

        @staticmethod
        def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
            slopes = zip(partials(*ctx.saved_tensors), tangents, strict=True)
            moved = [d * t for d, t in slopes if d is not None and t is not None]
            return torch.stack(moved).sum(0)

    class Transformable(Custom):
        """The same in the form that `torch.func` requires; 30 us slower per call."""

        generate_vmap_rule = True

        @staticmethod
        def forward(*inputs: Tensor) -> Tensor:
            return value(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

    @wraps(value)
    def function(*inputs: Tensor) -> Tensor:
        for x in inputs:
            if isinstance(x, fx.Proxy):
                if kernels is not None:
                    chosen = in_float32 if x.tracer.float32 else kernels
                    return x.tracer.call_kernel(chosen, inputs)
                return x.tracer.call(value, partials, inputs)
        if any([x.shape != inputs[0].shape for x in inputs]):
            inputs = torch.broadcast_tensors(*inputs)
        if is_traced() and not is_step_recorded():
            if torch._C._are_functorch_transforms_active():
                return Transformable.apply(*inputs)
            return (plain or value)(*inputs)
        if torch.is_grad_enabled() and any([x.requires_grad for x in inputs]):
            return Custom.apply(*inputs)
        return value(*inputs) if kernels is None else kernels.value(*inputs)[0]

    return function
