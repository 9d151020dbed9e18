"""Observe what Python reads from tensors, and which site draws, while a step is recorded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

aten = torch.ops.aten


class Declined(Exception):
    """A model, guide or ELBO that cannot be recorded; the message says which site and why."""


@dataclass(frozen=True)
class Read:
    """A number that Python has read from a tensor, on which the recorded operations may depend.

    Attributes:
        tensor: what was read, of one element.
        value: the number.
        where: the site or the line of code that has read it.
    """

    tensor: Tensor
    value: Any
    where: str


class RandomOperation(NamedTuple):
    """Which site draws, or which line of code; and the strides of what is drawn.

    Random numbers fill a tensor in the order of its memory.
    """

    site: str
    strides: tuple[int, ...]


class Reads:
    """What Python reads, and which site each random operation belongs to."""

    def __init__(self) -> None:
        self.found: list[Read] = []
        self.draws: list[RandomOperation] = []
        self.site: str | None = None
        self.count = 0  # of numbers read, those that an ELBO of Pyro's reads included

    def note_values(self, x: Any) -> None:
        """Note that all values of a tensor are read."""
        if isinstance(x, Tensor):
            with _disable_current_modes():
                values = x.detach().clone()
            where = self.where() or "the ELBO"
            self.found.append(Read((x == values).all(), True, where))

    @contextmanager
    def noted(self) -> Iterator[None]:
        """While this context is open, reads and draws are noted."""
        with _Sites(self), _Memory(self), _Operations(self):
            yield

    def where(self) -> str | None:
        """The site or the line that reads.

        It is None for the loss that an ELBO of Pyro's returns, and for torch's validation of the
        arguments and values of distributions, which raises an error or does nothing.
        """
        frame: Any = sys._getframe(1)
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if module in _RETURN_THE_LOSS or (module, frame.f_code.co_name) in _VALIDATE:
                return None
            if module and not module.startswith(_PASSED_THROUGH):
                line = f"{frame.f_code.co_name} (line {frame.f_lineno} of {module})"
                return line if self.site is None else f"site {self.site!r}, in {line}"
            frame = frame.f_back
        return "an unknown place"


class _Sites(Messenger):
    """Keeps the name of the site that is drawn."""

    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self.reads = reads

    def _pyro_sample(self, msg: Any) -> None:
        self.reads.site = msg["name"]

    def _pyro_post_sample(self, msg: Any) -> None:
        self.reads.site = None


class _Operations(TorchDispatchMode):
    """Notes reads of single numbers, and random operations."""

    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.data_dependent_output in func.tags:
            return self._read(func, args, kwargs)
        for size in self._sizes(func, args):  # the shapes of later operations depend on it
            self._read(_ITEM, (size,), {})
        result = func(*args, **kwargs)
        if torch.Tag.nondeterministic_seeded in func.tags:
            site = self.reads.site or self.reads.where() or "the ELBO"
            strides = result.stride() if isinstance(result, Tensor) else ()
            self.reads.draws.append(RandomOperation(site, strides))
        return result

    def _sizes(self, func: Any, args: Any) -> list[Tensor]:
        """The sizes of an operation's result that depend on values."""
        if func is aten.index.Tensor:
            masks = [x for x in args[1] if isinstance(x, Tensor) and x.dtype is torch.bool]
            return [mask.count_nonzero() for mask in masks]
        if torch.Tag.dynamic_output_shape not in func.tags:
            return []
        if func not in _SIZES:
            raise Declined(
                f"the size of {func}'s result at {self.reads.where()} depends on values"
            )
        return [_SIZES[func](*args)]

    def _read(self, func: Any, args: Any, kwargs: Any) -> Any:
        from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

        self.reads.count += 1
        where = self.reads.where()
        if func is aten.equal.default and args[0].shape == args[1].shape:
            return bool(self._read(_ITEM, ((args[0] == args[1]).all(),), {}))
        if func is not _ITEM:
            raise Declined(f"{func} at {where} reads the values of a tensor")
        with disable_proxy_modes_tracing():
            value = func(*args, **kwargs)
        if where is not None:
            self.reads.found.append(Read(args[0], value, where))
        return value


class _Memory(TorchFunctionMode):
    """Refuses functions that read the memory of a tensor without an operation."""

    def __init__(self, reads: Reads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        copied = args[1:] if func is Tensor.new_tensor else args
        if func in _COPY_VALUES and _holds_tensor(
            copied, kwargs, direct=func not in _KEEP_TENSORS
        ):
            self._refuse(func)
        if func in _READ_ARGUMENT:
            self.reads.note_values([*args, *kwargs.values()][_READ_ARGUMENT[func]])
        seen = self.reads.count
        result = func(*args, **kwargs)
        if func in _ARE_NUMBERS and self.reads.count == seen:  # read by code in C
            self._refuse(func)
        return result

    def _refuse(self, func: Any) -> None:
        name = getattr(func, "__name__", str(func))
        raise Declined(f"{name} at {self.reads.where()} takes the values out of a tensor")


def _holds_tensor(args: Any, kwargs: Any, *, direct: bool) -> bool:
    """Whether there is a tensor in some arguments, or in lists and the like among them."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            if direct:
                return True
        elif any(isinstance(x, Tensor) for x in pytree.tree_leaves(value)):
            return True
    return False


#: Functions that copy the values of tensors without an operation.
_COPY_VALUES = {
    torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor, Tensor.tolist, Tensor.numpy,
    Tensor.__array__, Tensor.__dlpack__, Tensor.__repr__, Tensor.__format__,
}  # fmt: skip
#: Those of them that return a tensor which they are given.
_KEEP_TENSORS = {torch.as_tensor, torch.asarray}
_ARE_NUMBERS = {Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.__complex__}
#: Functions that read the values of one argument to decide on shapes: its place.
_READ_ARGUMENT = {
    torch.tensor_split: 1,
    Tensor.tensor_split: 1,
    torch._VF._pack_padded_sequence: 1,
    torch._VF._pad_packed_sequence: 1,
}
_ITEM = aten._local_scalar_dense.default
_SIZES: dict[Any, Any] = {
    aten.nonzero.default: lambda x: x.count_nonzero(),
    aten.masked_select.default: lambda x, mask: mask.count_nonzero(),
    aten.repeat_interleave.Tensor: lambda repeats: repeats.sum(),
}
_VALIDATE = {
    ("torch.distributions.distribution", "__init__"),
    ("torch.distributions.distribution", "_validate_sample"),
}
_RETURN_THE_LOSS = ("pyro.util", "pyro.infer.util")
_PASSED_THROUGH = (__name__, "torch.", "pyro.", "pyro_kl.", "contextlib")
