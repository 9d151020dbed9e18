"""Recording of a formula, which is run on symbols, as a graph of elementwise operations."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

#: From an operation's arguments to its derivative by each argument, or None.
Partials = Callable[..., Sequence[Any]]


class Step(NamedTuple):
    """One operation of a recorded formula; `partials` if its derivatives are written by hand."""

    node: fx.Node
    inputs: tuple[Any, ...]
    partials: Partials | None


class Tracer(fx.proxy.GraphAppendingTracer):
    """The operations of a formula as a graph, and the steps to differentiate it by.

    A function with derivatives written by hand is one step, whatever operations it consists of.

    Args:
        graph: where the operations are appended.
        float32: whether the parameters are float32 numbers that are carried in float64.
    """

    def __init__(self, graph: fx.Graph, *, float32: bool = False) -> None:
        super().__init__(graph)
        self.float32 = float32
        self.steps: list[Step] = []
        self._recording = True

    def symbol(self, name: str) -> Any:
        """An argument of the graph."""
        return self.create_proxy("placeholder", name, (), {})

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
        if target in ("squeeze", "unsqueeze"):
            return args[0]  # the tensors of a program all have the same number of dimensions
        return super().create_proxy(kind, target, args, kwargs, *rest, **options)

    @contextmanager
    def without_steps(self) -> Iterator[None]:
        """The operations inside go to the graph, but are not steps of the chain rule."""
        before, self._recording = self._recording, False
        try:
            yield
        finally:
            self._recording = before

    def call(self, value: Callable[..., Any], partials: Partials, inputs: tuple[Any, ...]) -> Any:
        """One step of a function with partial derivatives of its own."""
        with self.without_steps():
            result: Any = value(*inputs)
        if self._recording:
            self.steps.append(Step(result.node, inputs, partials))
        return result

    def call_kernel(self, kernels: Kernels, inputs: tuple[Any, ...]) -> Any:
        """One step of a kernel, which computes its derivatives as soon as one of them is used."""
        with self.without_steps():
            found: Any = self.create_proxy("call_function", kernels.value, inputs, {})
            result = found[0]

        def partials(*_: Any) -> list[Any]:
            found.node.target = kernels.with_partials
            return [found[i] for i in range(1, 1 + len(inputs))]

        if self._recording:
            self.steps.append(Step(result.node, inputs, partials))
        return result


class BlockKernel:
    """A function of tensors of any one shape, computed on flat blocks that stay in a cache.

    It is one instruction of a program, and may use any operation of torch on tensors of one
    dimension, as long as every number of a result depends on the numbers at its place alone.

    Args:
        function: from flat tensors of one length to a tuple of results.
        name: what the generated code of a program calls it; no two kernels share one.
        block: how many numbers are computed at a time.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], name: str, block: int) -> None:
        self._function, self._block = function, block
        self.__name__ = self.__qualname__ = name

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        if any([x.shape != inputs[0].shape for x in inputs]):
            inputs = tuple(torch.broadcast_tensors(*inputs))
        shape, size = inputs[0].shape, inputs[0].numel()
        if size <= self._block or inputs[0].device.type != "cpu":
            return self.whole(*inputs)
        count = math.ceil(size / self._block)
        parts = zip(*(x.reshape(-1).tensor_split(count) for x in inputs), strict=True)
        found = zip(*(self._function(*part) for part in parts), strict=True)
        return [torch.cat(pieces).view(shape) for pieces in found]

    def whole(self, *inputs: Tensor) -> Sequence[Tensor]:
        """The same in one block, of inputs of one shape."""
        shape = inputs[0].shape
        if len(shape) == 1:
            return self._function(*inputs)
        found = self._function(*(x.reshape(-1) for x in inputs))
        return [x.view(shape) for x in found]

    @staticmethod
    def is_in(node: fx.Node) -> bool:
        """Whether a node of a graph is a kernel, or one of its results."""
        if node.target is operator.getitem:
            node = node.args[0]  # type: ignore[assignment]
        return isinstance(node, fx.Node) and isinstance(node.target, BlockKernel)


class Kernels(NamedTuple):
    """A function that computes its value and its partial derivatives at once."""

    value: BlockKernel
    with_partials: BlockKernel
