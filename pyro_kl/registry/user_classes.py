"""Code of others, which is known by calling it: a user's `log_prob`, a map with its own network.

A distribution or a transform of torch's or Pyro's own is its class and the tensors in it, so that
the same can be made of other tensors. What a user has written, and what keeps parameters in a
module, may depend on anything, and may do anything when it is called: draw random numbers,
remember what it has seen, raise any exception. Here is how it is called without harm: on a copy
that it may write attributes to, and behind one boundary where its exceptions become a
`NotImplementedError`, which means that there is no formula.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from numbers import Number
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform, _InverseTransform
from torch.utils._python_dispatch import TorchDispatchMode

from ..numerics.concrete import is_traced
from ..numerics.dtypes import in_float64
from .subclasses import is_upstream

_PLAIN = (Tensor, Number, str, torch.Size, torch.dtype, torch.device, Constraint, type(None))
#: Of numbers near 1 that were computed twice, once perhaps in float32 and in another order.
_ROUNDING = 1e-5


def is_foreign(part: Any) -> bool:
    """Whether a distribution or a map is more than torch's or Pyro's class and its tensors."""
    if isinstance(part, _InverseTransform):
        return is_foreign(part.inv)
    if isinstance(part, Distribution | Transform):
        is_module = isinstance(part, torch.nn.Module)
        if is_module or not is_upstream(type(part)):
            return True
        return any(is_foreign(x) for x in content(part).values())
    if isinstance(part, list | tuple):
        return any(is_foreign(x) for x in part)
    return not isinstance(part, _PLAIN)


def content(part: Any) -> dict[str, Any]:
    """What it is made of; a transform also remembers where it was evaluated last."""
    hidden = ("_inv", "_cached_x_y") if isinstance(part, Transform) else ()
    return {k: v for k, v in vars(part).items() if k not in hidden}


def tensors_in(part: Any) -> list[Tensor]:
    """Every floating-point tensor inside, in a fixed order."""
    if isinstance(part, Tensor):
        return [part] if part.is_floating_point() else []
    if isinstance(part, _InverseTransform):
        return tensors_in(part.inv)
    if isinstance(part, Distribution | Transform):
        return [x for value in content(part).values() for x in tensors_in(value)]
    if isinstance(part, list | tuple):
        return [x for value in part for x in tensors_in(value)]
    return []


def promoted(distributions: Sequence[Distribution]) -> torch.dtype:
    """The dtype that torch's promotion gives to what the distributions are made of."""
    found = [x.dtype for distribution in distributions for x in tensors_in(distribution)]
    dtype = found[0] if found else torch.get_default_dtype()
    for other in found[1:]:
        dtype = torch.promote_types(dtype, other)
    return dtype


def own_copy(part: Any) -> Any:
    """The same in float64, made of the same tensors and modules, which may write to itself.

    A transform remembers its last argument and what it made of it; whoever called it before may
    still need that.
    """
    if isinstance(part, _InverseTransform):
        return own_copy(part.inv).inv
    if isinstance(part, torch.Size):
        return part
    if isinstance(part, list | tuple):  # a shape may be a plain tuple, and is compared with one
        copies = [own_copy(x) for x in part]
        return copies if isinstance(part, list) else tuple(copies)
    if isinstance(part, Tensor):
        return in_float64(part) if part.is_floating_point() else part
    if not isinstance(part, Distribution | Transform):
        return part
    new = copy.copy(part)
    new.__dict__.update({k: own_copy(v) for k, v in content(part).items()})
    if isinstance(new, torch.nn.Module):
        new.__dict__["_buffers"] = dict(new._buffers)
    if isinstance(new, Transform):
        new.__dict__.update(_inv=None, _cached_x_y=(None, None))
    else:
        new.__dict__["_validate_args"] = False
    return new


def callable_copy(part: Any) -> Any:
    """`own_copy` of what is known by calling it alone.

    Raises:
        NotImplementedError: where a function is traced, compiled or mapped: what is called may
            remember tensors of other runs, which torch's tracer does not survive, and the number
            of nodes that it needs cannot follow the parameters of later runs.
    """
    if is_traced():
        raise NotImplementedError(
            "A density or a map that is known by calling it alone is not integrated while a "
            "function is traced, compiled or mapped: sample it there."
        )
    return own_copy(part)


def called(function: Callable[..., Any], *args: Any) -> Any:
    """What the code of others returns; whatever it raises means that there is no formula."""
    try:
        return function(*args)
    except NotImplementedError:
        raise
    except Exception as error:
        name = getattr(function, "__qualname__", type(function).__name__)
        raise NotImplementedError(
            f"{name} raised {type(error).__name__} ({error}) where an integral asked for it."
        ) from error


def check_pointwise(density: Callable[[Tensor], Tensor], y: Tensor) -> None:
    """Raise unless a density is a function of each number by itself, which changes nothing.

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
            "again: an integral cannot know it."
        )


class _Watch(TorchDispatchMode):
    """Stops what draws random numbers or changes a tensor that was there before, in good time."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, Any] = {}  # the storages of new tensors

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        is_random, written, makes_new = _effects(func)
        if is_random:
            raise NotImplementedError("The density draws random numbers when it is evaluated.")
        for position, name in written:
            target = args[position] if position < len(args) else kwargs.get(name)
            if any(_storage(x)._cdata not in self._made for x in tensors_of(target)):
                raise NotImplementedError(
                    "The density changes a tensor when it is evaluated, as batch normalisation "
                    "does in training."
                )
        result = func(*args, **kwargs)
        if makes_new:
            self._made.update((_storage(x)._cdata, _storage(x)) for x in tensors_of(result))
        return result


@lru_cache(maxsize=1024)
def _effects(func: Any) -> tuple[bool, list[tuple[int, str]], bool]:
    """Whether an operation draws random numbers, what it writes to, whether its result is new."""
    schema = func._schema
    written = [
        (position, argument.name)
        for position, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    makes_new = all(result.alias_info is None for result in schema.returns)
    return torch.Tag.nondeterministic_seeded in func.tags, written, makes_new


def _storage(x: Tensor) -> Any:
    return x.untyped_storage()


def tensors_of(values: Any) -> Iterator[Tensor]:
    """All tensors in the arguments or the results of an operation."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple | dict):
        for value in values.values() if isinstance(values, dict) else values:
            yield from tensors_of(value)
