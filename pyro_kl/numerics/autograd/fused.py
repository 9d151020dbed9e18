"""A formula as one node of autograd's graph, with value and derivatives computed together."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..concrete import is_step_recorded, is_traced
from ..dtypes import Parameters, in_float64, promoted, summed_to
from .program import Program, program

#: Elements of one block: a few temporaries of 8 bytes per element stay in a core's cache.
_BLOCK = 16384
#: The elements of an operation that torch gives to one thread.
_GRAIN = 32768

#: From the inputs to the value and to what the backward pass needs.
Forward = Callable[..., tuple[Tensor, Sequence[Tensor]]]
#: From the value's gradient, the inputs, the list of what the forward pass kept, and which inputs
#: require a gradient, to the gradients. What is kept may be overwritten if the list is emptied.
Backward = Callable[
    [Tensor, Sequence[Tensor], list[Tensor], Sequence[bool]], tuple[Tensor | None, ...]
]


def fused(forward: Forward, backward: Backward) -> Callable[[Callable[..., Tensor]], Any]:
    """Decorate a composition of torch's operations with its forward and backward pass.

    Autograd stores and replays every operation of a composition; passes written by hand share
    their products. The composition itself serves wherever a custom node cannot: second
    derivatives, forward mode, `torch.func`, `torch.compile`, `torch.jit.trace`.
    """

    def decorate(composition: Callable[..., Tensor]) -> Callable[..., Tensor]:
        node = _node(forward, backward, composition)

        @wraps(composition)
        def function(*inputs: Tensor) -> Tensor:
            if not one_node_serves():
                return composition(*inputs)
            if torch.is_grad_enabled():
                for x in inputs:
                    if x.requires_grad:
                        return node(*inputs)
            return forward(*inputs)[0]

        return function

    return decorate


def one_node_serves() -> bool:
    """Whether nothing but autograd's reverse mode differentiates or records what runs now."""
    return (is_step_recorded() or not is_traced()) and forward_ad._current_level < 0


def _node(
    forward: Forward, backward: Backward, composition: Callable[..., Tensor]
) -> Callable[..., Tensor]:
    """One node of autograd's graph."""

    class Node(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Tensor) -> Tensor:
            value, kept = forward(*inputs)
            ctx.kept = list(kept)
            ctx.save_for_backward(*inputs)
            return value

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
            inputs, needed = ctx.saved_tensors, ctx.needs_input_grad
            if not torch.is_grad_enabled():
                # a retained graph computes again what an earlier backward pass has overwritten
                ctx.kept = ctx.kept or list(forward(*inputs)[1])
                return backward(grads[0], inputs, ctx.kept, needed)
            # With create_graph=True the gradient gets a graph of its own. Two inputs may be one
            # tensor; views of it keep their derivatives apart.
            inputs = [x.view_as(x) for x in inputs]
            wanted = [x for x, need in zip(inputs, needed, strict=True) if need]
            value = composition(*inputs)
            found = iter(
                torch.autograd.grad(
                    value, wanted, grads[0], create_graph=True, materialize_grads=True
                )
            )
            return tuple(next(found) if need else None for need in needed)

    # Function.apply without its handling of functorch, which never reaches this line
    return super(torch.autograd.Function, Node).apply


#: A formula on the parameters of p and of q, in float64.
Kernel = Callable[[Parameters, Parameters], Tensor]


class FusedFormula:
    """A formula on parameters in any precision: float64 inside, rounded once.

    Where autograd records, the value and its partial derivatives are computed together, by the
    formula's program, and only the derivatives are kept: the backward pass is one product for
    each parameter. A formula that cannot be recorded is run operation by operation.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._compiled: dict[tuple[Any, ...], Callable[..., Tensor]] = {}

    def __call__(self, p: Parameters, q: Parameters) -> Tensor:
        if not one_node_serves():
            return self.plain(p, q)
        tensors = (*p.values(), *q.values())
        if torch.is_grad_enabled():
            wanted = tuple([x.requires_grad for x in tensors])
        else:
            wanted = (False,) * len(tensors)
        key = (*p, *q, *[x.dtype for x in tensors], tensors[0].is_mps, wanted)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = self._compile(tuple(p), tuple(q), tensors, wanted)
        return compiled(*tensors)

    def plain(self, p: Parameters, q: Parameters) -> Tensor:
        """The formula, operation by operation."""
        value = self._kernel(
            {name: in_float64(x) for name, x in p.items()},
            {name: in_float64(x) for name, x in q.items()},
        )
        return value.to(promoted((*p.values(), *q.values())))

    def _compile(
        self,
        p_names: tuple[str, ...],
        q_names: tuple[str, ...],
        tensors: Sequence[Tensor],
        wanted: tuple[bool, ...],
    ) -> Callable[..., Tensor]:
        """The formula as a function of tensors with these names, dtypes and wanted gradients."""

        def composition(*tensors: Tensor) -> Tensor:
            p = dict(zip(p_names, tensors, strict=False))
            return self.plain(p, dict(zip(q_names, tensors[len(p) :], strict=True)))

        float32 = all([x.dtype is torch.float32 and not x.is_mps for x in tensors])
        run = program(self._kernel, p_names, q_names, wanted, float32=float32)
        if run is None:
            return composition
        dtype = promoted(tensors)
        if True not in wanted:
            return lambda *tensors: _run(run, tensors, dtype)[0]

        def forward(*tensors: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
            value, *slopes = _run(run, tensors, dtype)
            return value, slopes

        return _node(forward, _gradients, composition)


def _gradients(
    grad: Tensor, inputs: Sequence[Tensor], slopes: list[Tensor], needed: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The slopes times the value's gradient."""
    left = list(slopes)
    # Numbers that were rounded from float64 are in memory of their own, which is overwritten where
    # it is large: new memory would cost more than the product.
    in_place = grad.numel() > _BLOCK and grad.is_cpu and grad.dtype is not torch.float64
    if in_place:
        slopes.clear()
    found: list[Tensor | None] = []
    for x, need in zip(inputs, needed, strict=True):
        if not need:
            found.append(None)
            continue
        slope = left.pop(0)
        overwritten = in_place and slope.shape == grad.shape
        found.append(summed_to(slope.mul_(grad) if overwritten else grad * slope, x))
    return tuple(found)


def _run(run: Program, tensors: Sequence[Tensor], dtype: torch.dtype) -> Sequence[Tensor]:
    """The value and the wanted derivatives in a precision, block by block."""
    block = _block_of(tensors)
    if block is not None:
        return _in_blocks(run, tensors, block, dtype)
    if dtype is torch.float64:  # what an exact sum evaluates: nothing is rounded
        return run([x.double() for x in tensors])
    if dtype is torch.float32 and not tensors[0].is_mps:  # as below, with fewer checks
        return [x.float() for x in run([x.double() for x in tensors])]
    return [x.to(dtype) for x in run([in_float64(x) for x in tensors])]


def _block_of(tensors: Sequence[Tensor]) -> int | None:
    """The size of a block, if the tensors are large and each has one shape or one element."""
    for x in tensors:
        if x.numel() > _BLOCK:
            break
    else:
        return None
    size, block = max([x.numel() for x in tensors]), block_size(x)
    if size <= block:
        return None
    shape = next(x.shape for x in tensors if x.numel() == size)
    alike = all((x.shape == shape and x.is_contiguous()) or x.numel() == 1 for x in tensors)
    return block if alike else None


def block_size(x: Tensor) -> int:
    """How many elements are computed at a time: on a CPU as many as fit into a cache."""
    if x.device.type != "cpu":
        return sys.maxsize
    threads = torch.get_num_threads()
    return _BLOCK if threads == 1 else _GRAIN * threads


def _in_blocks(
    run: Program, tensors: Sequence[Tensor], block: int, dtype: torch.dtype
) -> Sequence[Tensor]:
    """The same for large tensors: only the numbers of one block are carried in float64."""
    like = max(tensors, key=Tensor.numel)
    size = like.numel()
    flat = [x.reshape(-1) if x.numel() == size else x.reshape(()) for x in tensors]
    found: list[Tensor] = []
    for start in range(0, size, block):
        part = slice(start, start + block)
        results = run([in_float64(x[part] if x.dim() else x) for x in flat])
        if not found:
            found = [torch.empty(like.shape, dtype=dtype, device=like.device) for _ in results]
            into = [x.view(-1) for x in found]
        for target, result in zip(into, results, strict=True):
            target[part] = result
    return found
