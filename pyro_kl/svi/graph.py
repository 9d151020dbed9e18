"""Flat graphs of tensor operations: lifted constants, no mutation, no operation twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from .tensor_reads import Declined, aten

#: Operations that return their first argument if shape, dtype and strides stay the same.
_MAY_DO_NOTHING = {
    aten.detach.default, aten.alias.default, aten.expand.default, aten.view.default,
    aten._unsafe_view.default, aten._to_copy.default, aten.clone.default, aten.slice.Tensor,
    aten.lift_fresh.default, aten.lift_fresh_copy.default,
}  # fmt: skip
#: Operations that return their first argument if the second is 1.
_BY_ONE = {aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar}
#: Constants in the shape of another tensor: the place of their value, or the value.
_LIKE: Mapping[Any, int | float] = {
    aten.zeros_like.default: 0.0,
    aten.ones_like.default: 1.0,
    aten.new_zeros.default: 0.0,
    aten.new_ones.default: 1.0,
    aten.full_like.default: 1,
    aten.new_full.default: 2,
}


def is_random(node: Any) -> bool:
    """Whether a node draws."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    return torch.Tag.nondeterministic_seeded in node.target.tags


def like(node: Any) -> Any:
    """Shape, dtype and strides of a node's tensor; None if it is no tensor."""
    return node.meta.get("tensor_meta")


def device_of(node: Any) -> torch.device:
    """The device of a node's tensor."""
    return node.meta["val"].device


def lifted(traced: GraphModule, inputs: Sequence[Tensor]) -> tuple[GraphModule, list[Tensor]]:
    """The graph with a placeholder for each tensor that it holds, and those tensors.

    A tensor of one element that the traced function has made itself becomes a constant of the
    graph. All others may be changed in place by the user, and are read at each call.
    """
    graph = Graph()
    env: dict[Node, Any] = {}
    holders: dict[str, Tensor] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            env[node] = graph.node_copy(node)
        elif node.op == "get_attr" and not _is_fresh_number(node, traced):
            holders.setdefault(node.target, _held(traced, node))
    captured = {
        target: _with_meta(graph.placeholder(f"captured_{i}"), value)
        for i, (target, value) in enumerate(holders.items())
    }
    for node in traced.graph.nodes:
        if node.op == "get_attr" and node.target in captured:
            env[node] = captured[node.target]
        elif node.op == "get_attr":
            env[node] = _constant(graph, _held(traced, node))
        elif node.op == "output":
            graph.output([env.get(x, x) for x in node.args[0]])
        elif node.op != "placeholder":
            env[node] = graph.node_copy(node, env.__getitem__)
    assert len([*graph.find_nodes(op="placeholder")]) == len(inputs) + len(holders)
    return GraphModule({}, graph), list(holders.values())


def _held(traced: GraphModule, node: Any) -> Tensor:
    value: Any = traced
    for name in node.target.split("."):
        value = getattr(value, name)
    return value


def _is_fresh_number(node: Any, traced: GraphModule) -> bool:
    """Whether a tensor of one element was made by `torch.tensor(...)` inside of the function."""
    lifts = (aten.lift_fresh.default, aten.lift_fresh_copy.default)
    made = all(user.target in lifts for user in node.users)
    return made and _held(traced, node).dim() == 0


def _constant(graph: Graph, value: Tensor) -> Node:
    arguments: Any = {"dtype": value.dtype, "device": value.device}
    node = graph.call_function(aten.full.default, ([], value.item()), arguments)
    return _with_meta(node, value)


def _with_meta(node: Any, value: Tensor) -> Node:
    from torch.fx.passes.shape_prop import _extract_tensor_metadata

    node.meta.update(val=value, tensor_meta=_extract_tensor_metadata(value))
    return node


def without_mutation(module: GraphModule, inputs: Sequence[Tensor]) -> GraphModule:
    """The same function without operations that write to their arguments.

    Raises:
        Declined: an input is written to, such as the running mean of a batch normalisation.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    if _with_results_for_writes(module):
        return module
    with torch.no_grad():
        pure = make_fx(torch.func.functionalize(lambda *xs: module.forward(*xs)))(*inputs)
    placeholders = {*pure.graph.find_nodes(op="placeholder")}
    for node in pure.graph.nodes:
        if node.target is aten.copy_.default and node.args[0] in placeholders:
            raise Declined(
                f"a tensor of shape {tuple(like(node).shape)}, which is no parameter, is written "
                "to in each step (by a batch normalisation in training mode, for example)"
            )
    return pure


def _with_results_for_writes(module: GraphModule) -> bool:
    """Let operations return what they would write, in place; False if a written tensor is shared.

    `torch.func.functionalize` does it for every graph, but takes apart some operations.
    """
    writing = [node for node in module.graph.nodes if _writes(node)]
    plain = [_not_writing(node) for node in writing]
    if not all(plain) or not all(map(_is_own, writing)):
        return False
    for node, target in zip(writing, plain, strict=True):
        written, later = node.args[0], False
        node.target = target
        for user in [*module.graph.nodes]:
            later |= user is node
            if later and user is not node:
                user.replace_input_with(written, node)
    return True


def _writes(node: Any) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _not_writing(node: Any) -> Any:
    """The operation that returns what another one writes to its first argument."""
    name, _, overload = str(node.target).removeprefix("aten.").partition(".")
    name = {"normal_": "normal_functional"}.get(name, name.removesuffix("_"))
    return getattr(getattr(aten, name, None), overload, None)


def _is_own(node: Any) -> bool:
    """Whether no other tensor shares the memory that a node writes to."""
    written = node.args[0]
    if written.op != "call_function" or _returns_view(written):
        return False
    return not any(_returns_view(user) for user in written.users if user is not node)


def _returns_view(node: Any) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return True
    return any(x.alias_info is not None for x in node.target._schema.returns) and not _writes(node)


def simplified(module: GraphModule) -> GraphModule:
    """The same function without what is unused, computed twice, or has no effect.

    Random operations stay, used or not: each moves the generator.
    """
    graph = Graph()
    env: dict[Node, Node] = {}
    seen: dict[Any, Node] = {}
    for node in module.graph.nodes:
        if node.op == "output":
            graph.output([env[x] for x in node.args[0]])
            continue
        if node.op != "call_function" or is_random(node):
            env[node] = graph.node_copy(node, env.__getitem__)
            continue
        same = _same_as(node)
        if same is not None:
            env[node] = env[same]
            continue
        copy = _filled(graph, node) or graph.node_copy(node, env.__getitem__)
        if node.target is aten._to_copy.default and device_of(node) == device_of(node.args[0]):
            copy.kwargs = {"dtype": like(node).dtype}
        key = copy.target, str(copy.args), str(copy.kwargs)
        env[node] = seen.setdefault(key, copy)
        if env[node] is not copy:
            graph.erase_node(copy)
    graph.eliminate_dead_code(lambda node: node.op != "call_function" or is_random(node))
    return GraphModule({}, graph)


def _same_as(node: Any) -> Node | None:
    """The argument that a node returns unchanged; None if it does something."""
    if not node.args or not isinstance(node.args[0], Node):
        return None
    source = node.args[0]
    if like(node) is None or like(source) is None:
        return None
    if node.target in _BY_ONE:
        changes = node.args[1] != 1 or isinstance(node.args[1], bool)
    else:
        changes = node.target not in _MAY_DO_NOTHING
    if changes or device_of(node) != device_of(source):
        return None
    a, b = like(node), like(source)
    return source if (a.shape, a.dtype, a.stride) == (b.shape, b.dtype, b.stride) else None


def _filled(graph: Graph, node: Any) -> Node | None:
    """A constant in the shape of another tensor, without that tensor."""
    if node.target not in _LIKE:
        return None
    value: Any = _LIKE[node.target]
    if isinstance(value, int):
        value = node.args[value]
    if isinstance(value, Node) or like(node).memory_format is not torch.contiguous_format:
        return None
    arguments = {"dtype": like(node).dtype, "device": device_of(node)}
    copy = graph.call_function(aten.full.default, ([*like(node).shape], value), arguments)
    copy.meta = node.meta
    return copy
