"""The arguments of a step, and what a record depends on in them.

A float that changes from step to step, such as the weight of an annealed term, becomes an input of
the record, as tensors are. All other values that are no tensors are constants of it.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from copy import copy
from enum import Enum
from functools import cached_property
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .tensor_reads import Declined

_form_of = attrgetter("shape", "dtype", "device", "requires_grad")
#: Classes of arguments that cannot change and be the same object.
_CONSTANT = (
    int, float, complex, str, bytes, type(None), Enum, range, slice, torch.dtype, torch.device,
)  # fmt: skip


class Arguments:
    """Arguments of model and guide.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.
        numbers: places, among all values, of the floats that are inputs of the record.

    Attributes:
        recorded: both, with a tensor in the place of each of these floats.
        has_numbers: whether there are any.
        tensors: all tensors in `recorded`.
        key: what a record depends on: structure, shapes and dtypes of tensors, and all values that
            are no tensors.

    Raises:
        Declined: one of them is an object of another kind.
    """

    def __init__(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], numbers: Collection[int] = ()
    ) -> None:
        self.args, self.kwargs = args, kwargs
        leaves, structure = pytree.tree_flatten((args, kwargs))
        self.recorded, self.has_numbers = (args, kwargs), False
        places = [i for i in numbers if i < len(leaves) and isinstance(leaves[i], float)]
        if places:
            for i in places:
                leaves[i] = torch.tensor(leaves[i])
            self.recorded, self.has_numbers = pytree.tree_unflatten(leaves, structure), True
        self.tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self._forms = [*map(_form_of, self.tensors)]
        self._is_plain = (
            not places and not kwargs and all(isinstance(x, (Tensor, *_CONSTANT)) for x in args)
        )
        self.key: tuple[Any, tuple[Any, ...]] = structure, tuple(map(_form, leaves))

    @cached_property
    def name(self) -> str:
        """The key as a text, which is the same in another process."""
        return str(self.key)

    def renewed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        """Arguments that differ from these in their tensors alone, if that is certain.

        It takes a few microseconds where reading the arguments anew takes fifty.
        """
        if not self._is_plain or kwargs or len(args) != len(self.args):
            return None
        if all(map(is_, args, self.args)):
            return self if [*map(_form_of, self.tensors)] == self._forms else None
        tensors = []
        for new, old in zip(args, self.args, strict=True):
            if type(new) is not type(old) or not (isinstance(new, Tensor) or new is old):
                return None
            if isinstance(new, Tensor):
                tensors.append(new)
        if [*map(_form_of, tensors)] != self._forms:
            return None
        other = copy(self)
        other.args, other.tensors, other.recorded = args, tensors, (args, kwargs)
        return other

    def floats_apart(self, others: Iterable[Any]) -> set[int]:
        """The places of floats that alone make this key another one than each of `others`."""
        structure, forms = self.key
        found: set[int] = set()
        for other_structure, other_forms in others:
            if other_structure == structure:
                pairs = enumerate(zip(forms, other_forms, strict=True))
                apart = {i: pair for i, pair in pairs if pair[0] != pair[1]}
                if all(x[0] is float and y[0] is float for x, y in apart.values()):
                    found |= apart.keys()
        return found


def _form(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device, value.requires_grad
    if isinstance(value, float | complex):
        return type(value), repr(value)  # 0.0 and -0.0 are apart, and nan is itself
    if isinstance(value, _CONSTANT):
        return type(value), value
    raise Declined(
        f"an argument is a {type(value).__name__}, which may change without being another object; "
        "give tensors, numbers, texts, and lists, tuples or dicts of them, or let model and guide "
        "hold it, where changes are noticed"
    )
