"""Calls of user code: a `log_prob` of the user's, a map with its own network.

It may do anything when it is called: draw random numbers, remember its arguments, raise any
exception. It is called on a copy that it may write attributes to, and every exception that it
raises becomes a `NotImplementedError`, which means that there is no formula.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..messages import see, without_link
from ..numerics.concrete import is_traced
from .tensors import own_copy

#: Of numbers near 1 that were computed twice, once perhaps in float32 and in another order.
_ROUNDING = 1e-5


def callable_copy(part: Any) -> Any:
    """`own_copy` of a distribution or a map that is known by its calls alone.

    Raises:
        NotImplementedError: a function is traced, compiled or mapped. User code may hold tensors
            of other runs, at which torch's tracer fails, and the number of nodes that an
            integral needs cannot follow the parameters of later runs.
    """
    if is_traced():
        raise NotImplementedError(
            "A density or a map that is known by calling it alone is not integrated while a "
            "function is traced, compiled or mapped: sample it there." + see("no-integral")
        )
    return own_copy(part)


def called(function: Callable[..., Any], *args: Any) -> Any:
    """The result of user code; an exception in it means that there is no formula."""
    try:
        return function(*args)
    except NotImplementedError:
        raise
    except Exception as error:
        name = getattr(function, "__qualname__", type(function).__name__)
        raise NotImplementedError(
            f"{name} raised {type(error).__name__} ({without_link(error)}) where an integral "
            "asked for it." + see("no-integral")
        ) from error


def check_pointwise(density: Callable[[Tensor], Tensor], y: Tensor) -> None:
    """Raise unless a density is a function of each number by itself, without side effects.

    Args:
        density: of `y` or of a part of it.
        y: some points for each element of a batch, (points, *batch).

    Raises:
        NotImplementedError: it draws random numbers, writes to tensors that were there before,
            or its value at a point depends on the other points, as in batch normalisation.
    """
    count, size = y.shape[0], y.shape[1:].numel()
    shift = torch.arange(size, device=y.device).reshape(y.shape[1:])
    first = torch.arange(count - 1, device=y.device).reshape(-1, *(1,) * (y.dim() - 1))
    other = (first + shift) % count  # fewer points, and not the same ones in each element
    with torch.no_grad():
        with _Watch():
            whole = density(y)
        again = density(y.gather(0, other))
        same = whole.shape == y.shape and torch.allclose(
            whole.gather(0, other), again, rtol=_ROUNDING, atol=_ROUNDING, equal_nan=True
        )
    if not same:
        raise NotImplementedError(
            "The density at a point is not the same beside other points, or when it is asked for "
            "again: an integral cannot know it." + see("no-integral")
        )


class _Watch(TorchDispatchMode):
    """Raises before an operation draws random numbers or changes a tensor made earlier."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, Any] = {}  # the storages of new tensors

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise NotImplementedError(
                "The density draws random numbers when it is evaluated." + see("no-integral")
            )
        if any(_storage(x)._cdata not in self._made for x in written_by(func, args, kwargs)):
            raise NotImplementedError(
                "The density changes a tensor when it is evaluated, as batch normalisation "
                "does in training." + see("no-integral")
            )
        result = func(*args, **kwargs)
        if all(returned.alias_info is None for returned in func._schema.returns):
            self._made.update((_storage(x)._cdata, _storage(x)) for x in tensors_of(result))
        return result


def _storage(x: Tensor) -> Any:
    return x.untyped_storage()


def written_by(operation: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors among its arguments that an operation of torch's dispatcher writes to."""
    if not operation._schema.is_mutable:
        return []
    named = dict(zip([a.name for a in operation._schema.arguments], args, strict=False)) | kwargs
    written = [a.name for a in operation._schema.arguments if a.is_write and a.name in named]
    return [x for name in written for x in tensors_of(named[name])]


def tensors_of(values: Any) -> Iterator[Tensor]:
    """All tensors in the arguments or the results of an operation."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple | dict):
        for value in values.values() if isinstance(values, dict) else values:
            yield from tensors_of(value)
