"""Observe what Python reads from tensors, and which site draws, while a step is recorded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

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


class Reads:
    """What Python reads, and which site each random operation belongs to."""

    def __init__(self) -> None:
        self.found: list[Read] = []
        self.drawn_by: list[str] = []
        self.site: str | None = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """While this context is open, reads and draws are noted."""
        with _Sites(self), _Memory(self), _Operations(self):
            yield

    def where(self) -> str | None:
        """The site or the line that reads; None for a loss that an ELBO of Pyro's returns."""
        frame: Any = sys._getframe(1)
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if module in _RETURN_THE_LOSS:
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
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.reads.drawn_by.append(self.reads.site or self.reads.where() or "the ELBO")
        return func(*args, **kwargs)

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
        if func in _TAKE_VALUES_OUT and any(isinstance(x, Tensor) for x in args):
            name = getattr(func, "__name__", str(func))
            raise Declined(f"{name} at {self.reads.where()} takes the values out of a tensor")
        return func(*args, **(kwargs or {}))


_TAKE_VALUES_OUT = {
    torch.tensor, Tensor.new_tensor, Tensor.tolist, Tensor.numpy, Tensor.__array__,
    Tensor.__dlpack__,
}  # fmt: skip
_ITEM = aten._local_scalar_dense.default
_SIZES: dict[Any, Any] = {
    aten.nonzero.default: lambda x: x.count_nonzero(),
    aten.masked_select.default: lambda x, mask: mask.count_nonzero(),
    aten.repeat_interleave.Tensor: lambda repeats: repeats.sum(),
}
_RETURN_THE_LOSS = ("pyro.util", "pyro.infer.util")
_PASSED_THROUGH = (__name__, "torch.", "pyro.", "pyro_kl.", "contextlib")
