"""Values that are read from Python: which are compared by value, and how a message shows them."""

from __future__ import annotations

import reprlib
from collections import deque
from dataclasses import is_dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch

__all__ = ["SCALARS", "is_data", "is_scalar", "same", "shown"]

# Values without parts that can change. Two of them are the same if they are equal and of one type:
# torch.tensor(1), torch.tensor(1.0) and torch.tensor(True) are different graphs.
SCALARS = frozenset(
    {
        int, float, complex, bool, str, bytes, type(None), type(Ellipsis), range, slice,
        torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format,
        Decimal, Fraction, date, datetime, timedelta, type(Path()),
    }
)  # fmt: skip
CONTAINERS = (list, tuple, dict, set, frozenset, deque)


def is_scalar(value: Any) -> bool:
    """Whether a value is compared by value, and has no parts that can change."""
    return type(value) in SCALARS or isinstance(value, (Enum, np.generic))


def is_data(value: Any, depth: int = 4) -> bool:
    """Whether a value consists of scalars, tensors and arrays, in containers or not."""
    if is_scalar(value) or isinstance(value, (torch.Tensor, np.ndarray)):
        return True
    if not isinstance(value, CONTAINERS) or depth == 0:
        return False
    parts = value.values() if isinstance(value, dict) else value
    return all(is_data(part, depth - 1) for part in parts)


def same(old: Any, new: Any, depth: int = 8) -> bool:
    """Whether code that reads the new value instead of the old one makes the same graph.

    Scalars and containers of scalars are compared by value, dataclasses by their fields; tensors,
    functions and other objects are the same if they are one object.
    """
    if old is new:
        return True
    if type(old) is not type(new) or depth == 0:
        return False
    if isinstance(old, (float, complex, np.generic)):
        return repr(old) == repr(new)  # nan is itself, and 0.0 is not -0.0
    if is_scalar(old) and not isinstance(old, slice):
        return bool(old == new)
    if isinstance(old, MethodType):  # each look-up makes a new one
        return old.__func__ is new.__func__ and old.__self__ is new.__self__
    if isinstance(old, slice):
        old, new = ((part.start, part.stop, part.step) for part in (old, new))
    if isinstance(old, partial):
        old, new = ((call.func, call.args, call.keywords) for call in (old, new))
    if is_dataclass(old):
        old, new = ({**getattr(value, "__dict__", {})} for value in (old, new))
    if isinstance(old, dict):
        pairs = zip(old.values(), new.values(), strict=False)
        return list(old) == list(new) and all(same(a, b, depth - 1) for a, b in pairs)
    if isinstance(old, (list, tuple, deque)):
        pairs = zip(old, new, strict=False)
        return len(old) == len(new) and all(same(a, b, depth - 1) for a, b in pairs)
    return isinstance(old, (set, frozenset)) and old == new


def shown(value: Any) -> str:
    """A value for a message: short, and without the numbers of a tensor."""
    if is_scalar(value):
        return _REPR.repr(value)
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, CONTAINERS) and is_data(value):
        return _REPR.repr(value) if _only_scalars(value) else f"a {type(value).__name__}"
    if isinstance(value, FunctionType | type):
        return value.__qualname__.rpartition("<locals>.")[2]
    if isinstance(value, BuiltinFunctionType):
        return value.__name__
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _only_scalars(value: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else value
    return all(
        _only_scalars(part) if isinstance(part, CONTAINERS) else is_scalar(part) for part in parts
    )


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60
