"""A formula on parameters as one node of autograd's graph, in blocks that fit a cache."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..concrete import is_traced
from ..dtypes import Parameters, in_float64, promoted, summed_to
from .program import Program, program

#: Elements of one block: a dozen temporaries of 8 bytes each stay in a core's cache.
_BLOCK = 8192
#: What torch gives to one thread.
_GRAIN = 32768

Kernel = Callable[[Parameters, Parameters], Tensor]


class _Call(NamedTuple):
    """A formula's program for parameters of these names, and derivatives by the wanted ones.

    `dtype` is that of all parameters; None if they differ, or if there is no wider one.
    """

    node: OneNode
    p_names: tuple[str, ...]
    q_names: tuple[str, ...]
    wanted: tuple[bool, ...]
    dtype: torch.dtype | None
    run: Program | None

    def split(self, tensors: Sequence[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """p's and q's parameters by name."""
        n = len(self.p_names)
        p = dict(zip(self.p_names, tensors[:n], strict=True))
        return p, dict(zip(self.q_names, tensors[n:], strict=True))


class OneNode:
    """A formula on parameters in any precision: float64 inside, rounded once.

    Where autograd records, the value and its partial derivatives are computed together and only
    the derivatives are kept, so that going back is one product for each parameter. A second
    derivative, forward mode, `torch.func`, `torch.compile` and `torch.jit.trace` go through the
    formula itself.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._calls: dict[tuple[Any, ...], _Call] = {}

    def __call__(self, p: Parameters, q: Parameters) -> Tensor:
        if is_traced() or forward_ad._current_level >= 0:
            return self.plain(p, q)
        tensors = (*p.values(), *q.values())
        if torch.is_grad_enabled():
            wanted = tuple([x.requires_grad for x in tensors])
        else:
            wanted = (False,) * len(tensors)
        dtype: torch.dtype | None = tensors[0].dtype
        for x in tensors:
            if x.dtype is not dtype:
                dtype = None
                break
        if dtype is torch.float32 and tensors[0].is_mps:  # where there is no float64
            dtype = None
        key = (*p, dtype, *q, wanted)
        call = self._calls.get(key)
        if call is None:
            names = tuple(p), tuple(q)
            run = program(self._kernel, *names, wanted, single=dtype is torch.float32)
            call = _Call(self, *names, wanted, dtype, run)
            self._calls[key] = call
        if call.run is None:
            return self.plain(p, q)
        if True in wanted:
            return _apply(call, *tensors)
        return _run(call, tensors)[0]

    def plain(self, p: Parameters, q: Parameters) -> Tensor:
        """The formula, operation by operation."""
        value = self._kernel(
            {name: in_float64(x) for name, x in p.items()},
            {name: in_float64(x) for name, x in q.items()},
        )
        return value.to(promoted((*p.values(), *q.values())))


class _Node(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> Tensor:
        results = _run(call, tensors)
        ctx.save_for_backward(*tensors, *results[1:])
        ctx.call = call
        return results[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, saved, call = grads[0], ctx.saved_tensors, ctx.call
        at = len(call.wanted)
        if torch.is_grad_enabled():
            return (None, *_differentiable(call, saved[:at], grad))
        found: list[Tensor | None] = [None]
        for x, asked in zip(saved, call.wanted, strict=False):
            if asked:
                found.append(summed_to(grad * saved[at], x))
                at += 1
            else:
                found.append(None)
        return tuple(found)


# what `Function.apply` does before it is for functorch, which does not get here
_apply = super(torch.autograd.Function, _Node).apply


def _differentiable(
    call: _Call, inputs: Sequence[Tensor], grad: Tensor
) -> Iterator[Tensor | None]:
    """The gradient again, with a graph of its own: someone asks for a second derivative."""
    # p and q may share a tensor, whose two derivatives are to be told apart
    inputs = [x.view_as(x) for x in inputs]
    value = call.node.plain(*call.split(inputs))
    asked = [x for x, wanted in zip(inputs, call.wanted, strict=True) if wanted]
    found = iter(
        torch.autograd.grad(value, asked, grad, create_graph=True, materialize_grads=True)
    )
    return (next(found) if wanted else None for wanted in call.wanted)


def _run(call: _Call, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The value and the wanted derivatives in the inputs' precision, block by block."""
    run: Any = call.run
    for x in tensors:
        if x.numel() > _BLOCK:
            size, block = max([x.numel() for x in tensors]), block_size(tensors[0])
            if size > block and _splits(tensors, size):
                return _in_blocks(run, tensors, size, block)
            break
    if call.dtype is torch.float64:
        return run(tensors)
    if call.dtype is torch.float32:  # as below, in fewer steps
        return [x.float() for x in run([x.double() for x in tensors])]
    dtype = promoted(tensors)
    return [x.to(dtype) for x in run([in_float64(x) for x in tensors])]


def block_size(x: Tensor) -> int:
    """How many elements at a time: on a processor as many as a cache holds."""
    if x.device.type != "cpu":
        return sys.maxsize
    threads = torch.get_num_threads()
    return _BLOCK if threads == 1 else _GRAIN * threads


def _in_blocks(run: Program, tensors: Sequence[Tensor], size: int, block: int) -> Sequence[Tensor]:
    """The same for tensors that a cache does not hold."""
    like = next(x for x in tensors if x.numel() == size)
    flat = [x.reshape(-1) if x.numel() == size else x.reshape(()) for x in tensors]
    found: list[Tensor] = []
    for start in range(0, size, block):
        part = slice(start, start + block)
        results = run([in_float64(x[part] if x.dim() else x) for x in flat])
        if not found:
            dtype = promoted(tensors)
            found = [torch.empty(like.shape, dtype=dtype, device=like.device) for _ in results]
            into = [x.view(-1) for x in found]
        for target, result in zip(into, results, strict=True):
            target[part] = result
    return found


def _splits(tensors: Sequence[Tensor], size: int) -> bool:
    """Whether all are of one shape or single numbers."""
    shape = next(x.shape for x in tensors if x.numel() == size)
    return all((x.shape == shape and x.is_contiguous()) or x.numel() == 1 for x in tensors)
