"""Elementwise functions that bring their own partial derivatives, and how they are recorded.

`with_partials` gives a function its derivatives in closed form, which are more accurate and
several times faster than what autograd makes of a series. Inside of a formula that `symbolic`
records such a function is one step of the chain rule.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from ..concrete import is_traced

Elementwise = Callable[..., Tensor]
Partials = Callable[..., tuple[Tensor | None, ...]]


class Step(NamedTuple):
    """One operation of a recorded formula; `partials` if it brings its own derivatives."""

    node: fx.Node
    inputs: tuple[Any, ...]
    partials: Callable[..., Sequence[Any]] | None


class Tape(fx.proxy.GraphAppendingTracer):
    """Records a formula run on symbols: its operations as a graph, and the steps to differentiate.

    A function with partial derivatives of its own is one step, whatever it does inside.
    """

    def __init__(self, graph: fx.Graph, *, spare_digits: bool = False) -> None:
        super().__init__(graph)
        self.spare_digits = spare_digits
        self.steps: list[Step] = []
        self._recording = True

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        if self._recording and node.op != "placeholder":
            inputs = tuple(fx.Proxy(x, self) if isinstance(x, fx.Node) else x for x in node.args)
            self.steps.append(Step(node, inputs, None))
        return node

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **options: Any
    ) -> Any:
        if target is torch.functional.broadcast_tensors:
            return args  # every operation that is recorded broadcasts
        return super().create_proxy(kind, target, args, kwargs, *rest, **options)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What happens inside goes to the graph alone."""
        before, self._recording = self._recording, False
        try:
            yield
        finally:
            self._recording = before

    def call(self, value: Elementwise, partials: Partials, inputs: tuple[Any, ...]) -> Any:
        """One step of a function with partial derivatives."""
        with self.aside():
            result: Any = value(*inputs)
        if self._recording:
            self.steps.append(Step(result.node, inputs, partials))
        return result

    def call_opaque(self, value: Opaque, together: Opaque, inputs: tuple[Any, ...]) -> Any:
        """One instruction, of the value alone until somebody asks for its derivatives."""
        with self.aside():
            result: Any = self.create_proxy("call_function", value, inputs, {})

        def partials(*_: Any) -> list[Any]:
            with self.graph.inserting_before(result.node):
                every = self.create_proxy("call_function", together, inputs, {})
                slopes = [every[i] for i in range(1, 1 + len(inputs))]
            result.node.target, result.node.args = operator.getitem, (every.node, 0)
            return slopes

        if self._recording:
            self.steps.append(Step(result.node, inputs, partials))
        return result


class Opaque:
    """A function of tensors as one instruction of a program: on flat tensors, block by block.

    It may use any operation of torch on tensors of one dimension and one length, as long as
    every number of a result depends on the numbers at its place alone.
    """

    def __init__(self, function: Callable[..., Any], name: str, block: int) -> None:
        self._function, self._block = function, block
        self.__name__ = self.__qualname__ = name
        self.__module__ = function.__module__

    def __call__(self, *inputs: Tensor) -> Any:
        if any([x.shape != inputs[0].shape for x in inputs]):
            inputs = tuple(torch.broadcast_tensors(*inputs))
        shape, size = inputs[0].shape, inputs[0].numel()
        flat = inputs if len(shape) == 1 else [x.reshape(-1) for x in inputs]
        if size <= self._block or inputs[0].device.type != "cpu":
            found = self._function(*flat)
        else:
            count = math.ceil(size / self._block)
            parts = zip(*(x.tensor_split(count) for x in flat), strict=True)
            found = [self._function(*part) for part in parts]
            if isinstance(found[0], Tensor):
                found = torch.cat(found)
            else:
                found = [torch.cat(pieces) for pieces in zip(*found, strict=True)]
        if len(shape) == 1:
            return found
        if isinstance(found, Tensor):
            return found.view(shape)
        return [x.view(shape) for x in found]


#: A node that brings its own derivatives needs none of autograd's bookkeeping inside of it, which
#: is a sixth of the time of small operations.
below_autograd = getattr(torch._C, "_AutoDispatchBelowAutograd", nullcontext)


def with_partials(
    partials: Partials,
    together: Callable[..., Sequence[Tensor]] | None = None,
    plain: Elementwise | None = None,
    block: int = 1600,
) -> Callable[[Elementwise], Any]:
    """Decorate an elementwise function of tensors with its partial derivatives.

    None stands for one that is not there: an argument that the others determine.

    Where value and derivatives share most of their work, `together` computes them at once, of
    flat tensors of one length, `block` numbers at a time: a dozen rows of them should stay in a
    core's cache, and each tensor below the 128 KiB from which malloc asks the system for pages.

    Under `torch.compile` and `torch.jit.trace` the plain composition is used: the first fuses
    it, the second cannot record a custom function. So it is where no gradient is wanted. If
    autograd would make a nan of it somewhere, `plain` is what to differentiate instead.
    """

    def decorate(value: Elementwise) -> Elementwise:
        if together is not None:
            value_alone = Opaque(value, value.__name__, block)
            at_once = Opaque(together, f"{value.__name__}_and_slopes", block)

        class Plain(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *inputs: Tensor) -> Tensor:
                found = [value(*inputs)] if together is None else at_once(*inputs)
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

        class Transformable(Plain):
            """The same in the form that `torch.func` asks for; 30 us slower per call."""

            generate_vmap_rule = True

            @staticmethod
            def forward(*inputs: Tensor) -> Tensor:
                return value(*inputs)

            @staticmethod
            def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                ctx.save_for_backward(*inputs)
                ctx.save_for_forward(*inputs)

        def function(*inputs: Tensor) -> Tensor:
            for x in inputs:
                if isinstance(x, fx.Proxy):
                    if together is not None:
                        return x.tracer.call_opaque(value_alone, at_once, inputs)
                    return x.tracer.call(value, partials, inputs)
            if any(x.shape != inputs[0].shape for x in inputs):
                inputs = torch.broadcast_tensors(*inputs)
            if is_traced():
                if torch._C._are_functorch_transforms_active():
                    return Transformable.apply(*inputs)
                return (plain or value)(*inputs)
            if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
                return Plain.apply(*inputs)
            return value(*inputs) if together is None else value_alone(*inputs)

        function.__name__ = function.__qualname__ = value.__name__
        function.__doc__, function.__module__ = value.__doc__, value.__module__
        return function

    return decorate


def has_spare_digits(x: Any) -> bool:
    """Whether a parameter is recorded that had float32's digits, in the arithmetic of float64."""
    return isinstance(x, fx.Proxy) and getattr(x.tracer, "spare_digits", False)


def is_one(x: Any) -> bool:
    """Whether a parameter is recorded as 1: an Exponential is the Gamma of concentration 1."""
    return isinstance(x, fx.Proxy) and x.node.target is torch.ones_like
