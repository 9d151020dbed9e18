"""Numbers and tensors of an expression, in double precision and bounded in size."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .mistake import Mistake

#: The largest number of elements of a tensor.
MOST = 1_000_000
#: Beyond this an integer is a double with a rounded last digit.
_LARGEST_INTEGER = 2**53
_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def checked_number(value: float, at: ast.AST) -> float:
    """A number; an integer that a double cannot hold exactly is refused."""
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        try:
            return float(value)
        except OverflowError:
            raise Mistake("this number is too large", at) from None
    return value


def arithmetic(kind: ast.operator, a: Any, b: Any, at: ast.AST) -> Any:
    """`a + b` and the like, of numbers or tensors; no number and no tensor gets large.

    Raises:
        Mistake: an operand is no number, the result is no number, or it is too large.
    """
    for x in (a, b):
        if not (is_number(x) or isinstance(x, Tensor)):
            raise Mistake(f"+ - * / ** take numbers and tensors, not {in_words(x)}", at)
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        shapes = [x.shape if isinstance(x, Tensor) else () for x in (a, b)]
        check_size(broadcast(shapes, at), at)
        return _OPERATORS[type(kind)](a, b)
    try:
        if isinstance(kind, ast.Pow) and not _is_small_power(a, b):
            a, b = float(a), float(b)
        result = _OPERATORS[type(kind)](a, b)
    except ZeroDivisionError:
        raise Mistake("division by zero", at) from None
    except OverflowError:
        raise Mistake("the result is too large", at) from None
    if isinstance(result, complex):
        raise Mistake("the result is a complex number", at)
    return checked_number(result, at)


def _is_small_power(a: float, b: float) -> bool:
    """Whether a ** b is an integer that a double holds: 9**9**9 is not computed as an integer."""
    if not (isinstance(a, int) and isinstance(b, int)) or b < 0:
        return False
    return abs(a) <= 1 or b * math.log2(abs(a)) <= math.log2(_LARGEST_INTEGER)


def broadcast(shapes: Sequence[Sequence[int]], at: ast.AST) -> torch.Size:
    try:
        return torch.broadcast_shapes(*map(tuple, shapes))
    except RuntimeError:
        words = " and ".join(str(tuple(shape)) for shape in shapes)
        raise Mistake(f"the shapes {words} do not broadcast", at) from None


def check_size(shape: Sequence[int], at: ast.AST) -> None:
    """Refuse a shape with too many elements."""
    if math.prod(shape) > MOST or any(n > MOST for n in shape):
        raise Mistake(
            f"a tensor of shape {tuple(shape)} is too large: {MOST:,} elements are possible", at
        )


def size(values: Sequence[Any], at: ast.AST) -> torch.Size:
    """The shape that `[2, 3]`, `2, 3` or `2` mean.

    Raises:
        Mistake: a value is no integer, or is negative.
    """
    if len(values) == 1 and isinstance(values[0], (list, tuple, torch.Size)):
        values = values[0]
    for x in values:
        if isinstance(x, bool) or not isinstance(x, int) or x < 0:
            raise Mistake(f"a shape has integers that are not negative, not {in_words(x)}", at)
    check_size(values, at)
    return torch.Size(values)


def as_tensor(value: Any, at: ast.AST) -> Tensor:
    """A number or a nested list as a double tensor; of True and False as a boolean one.

    Raises:
        Mistake: the list holds something else, or its rows differ in length.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, bool):
        return torch.tensor(value)
    if is_number(value):
        return torch.tensor(float(value), dtype=torch.float64)
    if not isinstance(value, (list, tuple)):
        raise Mistake(f"a list of numbers cannot hold {in_words(value)}", at)
    if not value:
        return torch.zeros(0, dtype=torch.float64)
    rows = [as_tensor(x, at) for x in value]
    if len({row.shape for row in rows}) > 1:
        raise Mistake("the rows of this list differ in length", at)
    if len({row.dtype for row in rows}) > 1:
        raise Mistake("this list has both numbers and True or False", at)
    check_size((len(rows), *rows[0].shape), at)
    return torch.stack(rows)


def holds_numbers(value: Any) -> bool:
    """Whether a list is a tensor: it has no distributions, transforms or words."""
    if isinstance(value, (list, tuple)):
        return all(map(holds_numbers, value))
    return isinstance(value, (bool, int, float, Tensor))


def in_words(value: Any) -> str:
    """What a value is, for a message."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None or isinstance(value, (bool, int, float, str)):
        text = repr(value)
        return text if len(text) <= 30 else f"{text[:27]}..."
    return f"a {type(value).__name__}"


# --- the functions that make tensors ------------------------------------------------------------


def _filled(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *sizes, at: make(size(sizes, at), dtype=torch.float64)


def _eye(n: int, m: int | None = None, *, at: ast.AST) -> Tensor:
    shape = size([n] if m is None else [n, m], at)
    check_size((shape[0], shape[-1]), at)
    return torch.eye(shape[0], shape[-1], dtype=torch.float64)


def _full(shape: Any, value: float, *, at: ast.AST) -> Tensor:
    if not is_number(value):
        raise Mistake(f"full(size, value): the value is a number, not {in_words(value)}", at)
    return torch.full(size([shape], at), float(value), dtype=torch.float64)


def _arange(*ends: float, at: ast.AST) -> Tensor:
    if not 1 <= len(ends) <= 3 or not all(is_number(x) and math.isfinite(x) for x in ends):
        raise Mistake("arange takes an end, a start and an end, or these and a step", at)
    start, end, step = {1: (0.0, *ends, 1.0), 2: (*ends, 1.0)}.get(len(ends), ends)
    if step == 0 or (end - start) / step < 0:
        raise Mistake("arange never gets to its end with this step", at)
    if (end - start) / step > MOST:
        raise Mistake(f"arange gets too long: {MOST:,} numbers are possible", at)
    return torch.arange(start, end, step, dtype=torch.float64)


def _linspace(start: float, end: float, steps: int, *, at: ast.AST) -> Tensor:
    if not (is_number(start) and is_number(end)):
        raise Mistake("linspace takes two numbers and a number of steps", at)
    (n,) = size([steps], at) if isinstance(steps, int) else size([[steps]], at)
    return torch.linspace(float(start), float(end), n, dtype=torch.float64)


#: What is called like torch's functions; each takes the place of its call for its errors.
FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "zeros": _filled(torch.zeros),
    "ones": _filled(torch.ones),
    "eye": _eye,
    "full": _full,
    "arange": _arange,
    "linspace": _linspace,
    "tensor": lambda data, *, at: as_tensor(data, at),
}
#: Numbers with a name.
CONSTANTS = {"pi": math.pi, "inf": math.inf, "nan": math.nan, "e": math.e}
