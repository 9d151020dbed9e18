"""The tensors that a distribution or a map is made of, and the same thing made of others.

An integral is differentiated by a list of tensors, and takes them row by row of a batch: what is
integrated has to be a function of them.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.transforms import Transform, _InverseTransform

from ...registry.user_classes import content


def made_of(part: Any, tensors: Iterator[Tensor]) -> Any:
    """A copy with other tensors, in the order of `tensors_in`; its batch shape is theirs."""
    if isinstance(part, Tensor):
        return next(tensors) if part.is_floating_point() else part
    if isinstance(part, _InverseTransform):
        return made_of(part.inv, tensors).inv
    if isinstance(part, list | tuple):
        made = [made_of(value, tensors) for value in part]
        return made if isinstance(part, list) else tuple(made)
    if not isinstance(part, Distribution | Transform):
        return part
    new = copy.copy(part)
    for name, value in content(part).items():
        new.__dict__[name] = made_of(value, tensors)
    if isinstance(new, Transform):
        new.__dict__.update(_inv=None, _cached_x_y=(None, None))
    else:
        new.__dict__.update(_validate_args=False, _batch_shape=torch.Size())
    return new


def kind_of(maps: Sequence[Transform]) -> tuple[Hashable, ...] | None:
    """What maps are but for the values of their tensors; None if they are made of more."""
    found: list[Hashable] = []
    for each in maps:
        inverse = isinstance(each, _InverseTransform)
        inner = each.inv if inverse else each
        rest = {k: x for k, x in content(inner).items() if not isinstance(x, Tensor)}
        if not all(isinstance(x, int | float | None) for x in rest.values()):
            return None
        found.append((type(inner), inverse, tuple(content(inner)), tuple(rest.items())))
    return tuple(found)
