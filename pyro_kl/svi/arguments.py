"""The arguments of a step, and what a record depends on in them."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property
from operator import attrgetter, is_
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

_form_of = attrgetter("shape", "dtype", "device", "requires_grad")
#: Classes of arguments that cannot change and be the same object.
_CONSTANT = (int, float, complex, str, bytes, type(None))


class Arguments:
    """Arguments of model and guide.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.

    Attributes:
        tensors: all tensors in them.
        key: what a record depends on: structure, shapes and dtypes of tensors, and all values that
            are no tensors.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs
        leaves, structure = pytree.tree_flatten((args, kwargs))
        self.tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self._forms = [*map(_form_of, self.tensors)]
        self._is_plain = not kwargs and all(isinstance(x, (Tensor, *_CONSTANT)) for x in args)
        self.key: Hashable = structure, tuple(map(_form, leaves))

    @cached_property
    def name(self) -> str:
        """The key as a text, which is the same in another process."""
        return str(self.key)

    def are(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether these are certainly the same arguments; False says nothing."""
        return (
            self._is_plain
            and not kwargs
            and len(args) == len(self.args)
            and all(map(is_, args, self.args))
            and [*map(_form_of, self.tensors)] == self._forms
        )


def _form(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device, value.requires_grad
    try:
        hash(value)
    except TypeError:
        return id(value)
    return type(value), value
