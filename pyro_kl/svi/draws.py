"""The random draws of one step: taken outside of the graph, in the order of the model's own.

The same seed gives the same draws as a run of model and guide by Pyro, whatever the mode and the
number of steps in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from .graph import device_of, is_random, like
from .tensor_reads import aten

#: Operations that fill a tensor of a known shape -> the method of a tensor that does the same.
_FILLS = {
    aten.normal_functional.default: "normal_",
    aten.normal_.default: "normal_",
    aten.randn.default: "normal_",
    aten.randn_like.default: "normal_",
    aten.uniform.default: "uniform_",
    aten.rand.default: "uniform_",
    aten.rand_like.default: "uniform_",
    aten.exponential.default: "exponential_",
    aten.cauchy.default: "cauchy_",
    aten.log_normal.default: "log_normal_",
    aten.geometric.default: "geometric_",
    aten.bernoulli.p: "bernoulli_",
}
#: Those of them whose arguments are the shape alone, not the numbers of the distribution.
_OF_SHAPE = {
    aten.randn.default, aten.randn_like.default, aten.rand.default, aten.rand_like.default,
}  # fmt: skip


@dataclass(frozen=True)
class Draw:
    """One random operation of a step, whose arguments are constants.

    Attributes:
        shape: of what is drawn.
        dtype: of what is drawn.
        device: of what is drawn.
        method: the method of a tensor that fills it in place; "" for `operation`.
        arguments: of the method.
        operation: what draws instead, without arguments.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    method: str
    arguments: tuple[Any, ...] = ()
    operation: Callable[[], Tensor] | None = None

    def empty(self, *steps: int) -> Tensor:
        """Memory for the draws of some steps, of shape (*steps, *shape)."""
        return torch.empty((*steps, *self.shape), dtype=self.dtype, device=self.device)

    def into(self, memory: Tensor) -> Callable[[], object]:
        """A function that draws anew into `memory`, of this draw's shape."""
        if self.operation is not None:
            operation = self.operation
            return lambda: memory.copy_(operation())
        method = getattr(memory, self.method)
        return partial(method, *self.arguments) if self.arguments else method


def separate(
    module: GraphModule, num_parameters: int, strides: Sequence[tuple[int, ...]]
) -> tuple[GraphModule, list[Draw], list[int]]:
    """Take the random operations out of a graph.

    Args:
        module: a simplified graph, whose first inputs are the parameters.
        num_parameters: how many of them there are.
        strides: of what each random operation drew when it was recorded.

    Returns:
        The graph with one input for each draw after the parameters; the draws; the places, among
        all random operations, of those whose distribution depends on an input. If there are any,
        the graph is unchanged and there are no draws, since they have to keep their order.
    """
    random = [node for node in module.graph.nodes if is_random(node)]
    draws = [_draw_of(*each) for each in zip(random, strides, strict=True)]
    inner = [i for i, draw in enumerate(draws) if draw is None]
    if inner:
        return module, [], inner
    graph = Graph()
    env: dict[Node, Node] = {}
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node in placeholders[:num_parameters]:
        env[node] = graph.node_copy(node)
    for i, node in enumerate(random):
        env[node] = graph.placeholder(f"draw_{i}")
        env[node].meta = node.meta
    for node in placeholders[num_parameters:]:
        env[node] = graph.node_copy(node)
    for node in module.graph.nodes:
        if node.op == "output":
            graph.output([env[x] for x in node.args[0]])
        elif node not in env:
            env[node] = graph.node_copy(node, env.__getitem__)
    graph.eliminate_dead_code()
    return GraphModule({}, graph), [draw for draw in draws if draw is not None], []


def _draw_of(node: Any, strides: tuple[int, ...]) -> Draw | None:
    """The draw of a random operation; None if its distribution depends on an input."""
    if like(node) is None:  # several tensors
        return None
    about = tuple(like(node).shape), like(node).dtype, device_of(node)
    method = _FILLS.get(node.target)
    if method is not None:
        numbers = () if node.target in _OF_SHAPE else tuple(node.args[1:])
        if not any(isinstance(x, Node) for x in numbers):
            if torch.empty(about[0], device="meta").stride() == strides:
                return Draw(*about, method, numbers)
            return Draw(*about, "", operation=_in_other_order(about, strides, method, numbers))
    values = _constants([node.args, node.kwargs])
    if values is None:
        return None
    args, kwargs = values
    return Draw(*about, "", operation=partial(node.target, *args, **kwargs))


def _in_other_order(
    about: Any, strides: tuple[int, ...], method: str, numbers: tuple[Any, ...]
) -> Callable[[], Tensor]:
    """Fill a tensor whose memory has another order than its elements."""
    shape, dtype, device = about

    def draw() -> Tensor:
        memory = torch.empty_strided(shape, strides, dtype=dtype, device=device)
        return getattr(memory, method)(*numbers)

    return draw


def _constants(arguments: Any) -> Any:
    """Arguments with the values of the nodes in them; None if one depends on an input."""
    found: dict[Node, Any] = {}

    def value(node: Any) -> Any:
        if node not in found:
            if node.op != "call_function" or is_random(node):
                raise LookupError
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), value)
            found[node] = node.target(*args, **kwargs)
        return found[node]

    try:
        return torch.fx.map_arg(arguments, value)
    except LookupError:
        return None
