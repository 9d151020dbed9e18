"""Run a flat graph operation by operation, by the fastest function that torch has for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Interpreter, Node

from .graph import is_random
from .optimiser import Optimiser
from .record import Recording

#: A graph's inputs -> its outputs.
Function = Callable[..., list[Tensor]]


def runnable(module: GraphModule, inputs: Sequence[Tensor]) -> Function:
    """The function of a graph, with its constants computed once.

    A function of `torch` takes half the time of the same operation's `torch.ops.aten` entry. It
    takes its place where both give the same bits for `inputs`.

    Args:
        module: a flat graph without mutation.
        inputs: an example.
    """
    with torch.no_grad():
        module, constants = _with_constants(module)
        _Rebind(module).run(*inputs, *constants)
    module.recompile()
    forward = module.forward
    if not constants:
        return forward
    return lambda *inputs: forward(*inputs, *constants)


def _with_constants(module: GraphModule) -> tuple[GraphModule, list[Tensor]]:
    """The graph with an input for each constant that it computes, and their values."""
    values: dict[Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "call_function" and not is_random(node):
            if all(x in values for x in node.all_input_nodes):
                args, kwargs = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = node.target(*args, **kwargs)
    needed = {x for node in module.graph.nodes if node not in values for x in node.all_input_nodes}
    graph = Graph()
    env = {n: graph.node_copy(n) for n in module.graph.find_nodes(op="placeholder")}
    constants = [node for node in values if node in needed]
    env.update((node, graph.placeholder(f"constant_{node.name}")) for node in constants)
    for node in module.graph.nodes:
        if node.op == "output":
            graph.output([env[x] for x in node.args[0]])
        elif node not in env and node not in values:
            env[node] = graph.node_copy(node, env.__getitem__)
    return GraphModule({}, graph), [values[node] for node in constants]


class _Rebind(Interpreter):
    """Runs a graph, and replaces the functions of its nodes where a faster one is equal."""

    def run_node(self, n: Node) -> Any:
        if n.op != "call_function" or is_random(n):
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        expected = n.target(*args, **kwargs)  # type: ignore[operator]
        faster = _faster(n)
        if faster is not None and _equal(faster, args, kwargs, expected):
            n.target = faster
        return expected


def _faster(node: Any) -> Callable[..., Any] | None:
    """The function or method of torch with the name of an operation."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    name = node.target._schema.name.removeprefix("aten::")
    name = {"_to_copy": "to"}.get(name, name)
    return getattr(torch._C._VariableFunctions, name, None) or getattr(
        torch._C.TensorBase, name, None
    )


def _equal(faster: Callable[..., Any], args: Any, kwargs: Any, expected: Any) -> bool:
    """Whether a function returns the same bits, shapes and strides as expected."""
    try:
        got = faster(*args, **kwargs)
    except (TypeError, RuntimeError):
        return False
    if isinstance(expected, Tensor):
        got, expected = (got,), (expected,)
    return len(got) == len(expected) and all(map(_same, got, expected))


def _same(x: Any, y: Any) -> bool:
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        return bool(x == y)
    if (x.shape, x.dtype, x.stride()) != (y.shape, y.dtype, y.stride()):
        return False
    return bool(((x == y) | ((x != x) & (y != y))).all())


class FxRunner:
    """Takes a step by a recording, run operation by operation, and by torch's optimiser.

    Args:
        recording: of one gradient.
        optimiser: of its parameters, and maybe of others.
        levels: the ELBO's weights at some step.
        fixed: the tensors of some arguments, and those captured.

    Attributes:
        steps: of one call.
        eps: the rounding of the parameters' precision.
        num_operations: of a step.
    """

    steps = 1

    def __init__(
        self,
        recording: Recording,
        optimiser: Optimiser,
        levels: Sequence[float],
        fixed: Sequence[Tensor],
    ) -> None:
        self.optimiser, self.parameters = optimiser, recording.parameters
        self._leaves = [*recording.parameters.values()]
        self.eps = torch.finfo(self._leaves[0].dtype).eps
        nodes = recording.step.graph.nodes
        self.num_operations = sum(node.op == "call_function" for node in nodes)
        self._draws = [draw.empty() for draw in recording.draws]
        self._redraw = [
            draw.into(memory) for draw, memory in zip(recording.draws, self._draws, strict=True)
        ]
        self._levels: tuple[Sequence[float] | None, Tensor] = None, torch.empty(0)
        example = self._inputs(levels, fixed)
        self._step = runnable(recording.step, example)

    def _inputs(self, levels: Sequence[float], fixed: Sequence[Tensor]) -> list[Tensor]:
        for redraw in self._redraw:
            redraw()
        if levels != self._levels[0]:
            self._levels = levels, torch.tensor(levels, dtype=torch.float64)
        return [*self._leaves, *self._draws, self._levels[1], *fixed]

    def evaluate(self, levels: Sequence[float], fixed: Sequence[Tensor]) -> list[Tensor]:
        """Loss, whether the record holds, and gradients, with new draws."""
        with torch.no_grad():
            return self._step(*self._inputs(levels, fixed))

    def take(
        self, levels: Sequence[Sequence[float]], fixed: Sequence[Tensor]
    ) -> list[float] | None:
        """Take one step, with the first of `levels`; see `Runner`."""
        try:
            loss, ok, *gradients = self.evaluate(levels[0], fixed)
        except RuntimeError:  # a mask chooses another number of elements than in the record
            return None
        value = loss.item()
        if not math.isfinite(value) or not ok.item():
            return None
        for leaf, gradient in zip(self._leaves, gradients, strict=True):
            leaf.grad = gradient
        self.optimiser.step(self.parameters)
        return [value]

    def settle(self) -> None:
        """Nothing to do: leaves and optimiser hold the state of each step."""
