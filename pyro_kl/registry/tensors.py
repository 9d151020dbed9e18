"""The tensors that a distribution or a transform is made of, and copies made of other tensors.

A distribution or a transform of torch's or Pyro's own is its class and the tensors in it, so that
the same can be made of other tensors. What a user has written, and what keeps parameters in a
module, may depend on anything else: it is foreign.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from numbers import Number
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform, _InverseTransform

from ..numerics.dtypes import in_float64
from ..numerics.dtypes import promoted as promoted_dtype
from .subclasses import is_upstream

_PLAIN = (Tensor, Number, str, torch.Size, torch.dtype, torch.device, Constraint, type(None))


def is_foreign(part: Any) -> bool:
    """Whether a distribution or a map may depend on more than its class and its tensors."""
    if isinstance(part, _InverseTransform):
        return is_foreign(part.inv)
    if isinstance(part, (Distribution, Transform)):  # not a union, which is made at each call
        is_module = isinstance(part, torch.nn.Module)
        if is_module or not is_upstream(type(part)):
            return True
        return any(is_foreign(x) for x in content(part).values())
    if isinstance(part, list | tuple):
        return any(is_foreign(x) for x in part)
    return not isinstance(part, _PLAIN)


def content(part: Any) -> dict[str, Any]:
    """The attributes that define it; a transform's cache of its last argument is none of them."""
    hidden = ("_inv", "_cached_x_y") if isinstance(part, Transform) else ()
    return {k: v for k, v in vars(part).items() if k not in hidden}


def tensors_in(part: Any) -> list[Tensor]:
    """Every floating-point tensor inside, in a fixed order."""
    return [x for x in every_tensor_in(part) if x.is_floating_point()]


def every_tensor_in(part: Any) -> list[Tensor]:
    """Every tensor inside, in a fixed order."""
    if isinstance(part, Tensor):
        return [part]
    if isinstance(part, torch.Size):
        return []
    if isinstance(part, _InverseTransform):
        return every_tensor_in(part.inv)
    if isinstance(part, (Distribution, Transform)):
        return [x for value in content(part).values() for x in every_tensor_in(value)]
    if isinstance(part, list | tuple):
        return [x for value in part for x in every_tensor_in(value)]
    return []


def promoted(distributions: Sequence[Distribution]) -> torch.dtype:
    """The dtype to which torch promotes the tensors of all distributions."""
    found = [x for distribution in distributions for x in tensors_in(distribution)]
    return promoted_dtype(found) if found else torch.get_default_dtype()


def own_copy(part: Any) -> Any:
    """A copy in float64, of the same tensors and modules, that may write to its own attributes.

    A transform caches its last argument and the image of it, which the caller may still need.
    """
    return _copied(part, in_float64)


def made_of(part: Any, tensors: Iterator[Tensor]) -> Any:
    """A copy with other tensors, in the order of `tensors_in`; its batch shape is theirs."""
    return _copied(part, lambda _: next(tensors), batch_shape=torch.Size())


def _copied(
    part: Any, replace: Callable[[Tensor], Tensor], batch_shape: torch.Size | None = None
) -> Any:
    if isinstance(part, Tensor):
        return replace(part) if part.is_floating_point() else part
    if isinstance(part, _InverseTransform):
        return _copied(part.inv, replace, batch_shape).inv
    if isinstance(part, list | tuple) and not isinstance(part, torch.Size):
        copies = [_copied(x, replace, batch_shape) for x in part]
        return copies if isinstance(part, list) else tuple(copies)
    if not isinstance(part, (Distribution, Transform)):
        return part
    new = copy.copy(part)
    new.__dict__.update({k: _copied(v, replace, batch_shape) for k, v in content(part).items()})
    if isinstance(new, torch.nn.Module):
        new.__dict__["_buffers"] = dict(new._buffers)
    if isinstance(new, Transform):
        new.__dict__.update(_inv=None, _cached_x_y=(None, None))
    else:
        new.__dict__["_validate_args"] = False
        if batch_shape is not None:
            new.__dict__["_batch_shape"] = batch_shape
    return new


def kind_of(maps: Sequence[Transform]) -> tuple[Hashable, ...] | None:
    """What maps are apart from their tensors' values; None if they hold more than numbers."""
    found: list[Hashable] = []
    for each in maps:
        inverse = isinstance(each, _InverseTransform)
        inner = each.inv if inverse else each
        rest = {k: x for k, x in content(inner).items() if not isinstance(x, Tensor)}
        if not all(isinstance(x, int | float | None) for x in rest.values()):
            return None
        found.append((type(inner), inverse, tuple(content(inner)), tuple(rest.items())))
    return tuple(found)
