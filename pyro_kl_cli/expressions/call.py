"""A constructor or a method is called, and what is wrong is said with the name of the argument."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..refused import did_you_mean
from .mistake import Mistake
from .values import as_tensor, holds_numbers, in_words, is_number, size

#: The largest integer of an argument that is no parameter, as a dimension; and of a count.
_MOST_DIMENSIONS, _MOST_COUNTED = 10_000, 10_000_000
#: "Expected parameter scale (...) of distribution Normal(...) to satisfy the constraint
#: GreaterThan(lower_bound=0.0), but found invalid values:\ntensor(-1.)"
_INVALID = re.compile(
    r"Expected parameter (\w+) .*?to satisfy the constraint (.+?), but found invalid values:"
    r"\s*(?:tensor\()?(.*?)(?:, dtype=[\w.]+)?\)?$",
    re.DOTALL,
)
#: torch's constraints in words.
_CONSTRAINTS = {
    "Simplex()": "probabilities, not negative and not all 0",
    "PositiveDefinite()": "a positive definite matrix",
    "LowerCholesky()": "lower triangular with a positive diagonal",
    "LowerTriangular()": "lower triangular",
    "Real()": "a real number",
    "IndependentConstraint(Real(), 1)": "a vector of real numbers",
    "OrderedVector()": "an increasing vector",
}
_BOUNDS = {"GreaterThanEq": "at least", "GreaterThan": "greater than", "LessThan": "less than"}

Arguments = tuple[Sequence[Any], Mapping[str, Any]]


def construct(cls: type[Any], given: Arguments, call: ast.Call) -> Any:
    """A member of a class.

    Numbers for the parameters that the class declares, and lists, become double tensors.

    Raises:
        Mistake: the arguments do not fit the constructor, or it refuses them.
    """
    bound = _bound(cls, cls.__name__, given, call)
    constraints = getattr(cls, "arg_constraints", {})
    declared = constraints if isinstance(constraints, Mapping) else {}
    signature = inspect.signature(cls)
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        bound.arguments[name] = _argument(name, value, declared, _place(name, cls, call))
    try:
        made = cls(*bound.args, **bound.kwargs)
    except Mistake:
        raise
    except Exception as error:
        raise _in_words(cls, error, bound.arguments, call) from None
    _check_result(made, call)
    return made


def _argument(name: str, value: Any, declared: Mapping[str, Any], at: ast.AST) -> Any:
    """The value as the constructor wants it."""
    if isinstance(value, (list, tuple)) and holds_numbers(value):
        if name.endswith("shape"):
            return size([value], at)
        if name == "permutation":
            return as_tensor(value, at).long()
        if name == "lengths":
            return list(value)
        value = as_tensor(value, at)
    counted = _counts(declared.get(name))
    if isinstance(value, bool):
        return value
    # torch's relaxed classes declare no constraint for a temperature, and need a tensor
    if is_number(value) and name in (*declared, "temperature") and not counted:
        return as_tensor(value, at)
    largest = _MOST_COUNTED if counted else _MOST_DIMENSIONS
    if isinstance(value, int) or (counted and isinstance(value, (float, Tensor))):
        _check_at_most(largest, name, value, at)
    return value


def _check_at_most(largest: int, name: str, value: Any, at: ast.AST) -> None:
    if bool((torch.as_tensor(value, dtype=torch.float64).abs() > largest).any()):
        raise Mistake(f"{name} is too large for this command: {largest:,} is possible", at)


def _counts(constraint: Any) -> bool:
    """Whether a parameter is an integer."""
    try:
        return constraint is not None and constraint.is_discrete
    except NotImplementedError:  # it depends on other parameters
        return False


def _bound(
    function: Callable[..., Any], title: str, given: Arguments, call: ast.Call
) -> inspect.BoundArguments:
    """The arguments by their names."""
    signature = inspect.signature(function)
    names = list(signature.parameters)
    shown = ", ".join(name for name in names if name != "validate_args")
    args, kwargs = given
    for keyword in call.keywords:
        takes_any = inspect.Parameter.VAR_KEYWORD in {
            p.kind for p in signature.parameters.values()
        }
        if keyword.arg not in names and not takes_any:
            hint = did_you_mean(str(keyword.arg), names, f"it takes {shown}")
            raise Mistake(f"{title} has no argument {keyword.arg!r}; {hint}", keyword)
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        raise Mistake(f"{title}({shown}): {error}", call) from None


def _place(name: str, cls: Callable[..., Any], call: ast.Call) -> ast.AST:
    """Where an argument is in the text; the call itself for one that is not given."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    names = list(inspect.signature(cls).parameters)
    if name in names and names.index(name) < len(call.args):
        return call.args[names.index(name)]
    return call


def _in_words(
    cls: type[Any], error: Exception, arguments: Mapping[str, Any], call: ast.Call
) -> Mistake:
    """What a constructor says, in one line with the name of the argument."""
    text = str(error)
    found = _INVALID.search(text)
    if found is not None:
        name, constraint, value = found.groups()
        got = " ".join(value.split())
        got = got if len(got) <= 40 else f"{got[:37]}..."
        return Mistake(
            f"{cls.__name__}: {name} must be {_constraint_in_words(constraint)}, not {got}",
            _place(name, cls, call),
        )
    shapes = [f"{k} {tuple(x.shape)}" for k, x in arguments.items() if isinstance(x, Tensor)]
    if "must match the size" in text or "broadcast" in text:
        which = ", ".join(shapes)
        return Mistake(f"{cls.__name__}: the arguments do not broadcast: {which}", call)
    given = ", ".join(f"{name} is {in_words(value)}" for name, value in arguments.items())
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return Mistake(f"{cls.__name__} cannot be made: {first} ({given})", call)


def _constraint_in_words(constraint: str) -> str:
    """`GreaterThan(lower_bound=0.0)` is "greater than 0"."""
    if constraint in _CONSTRAINTS:
        return _CONSTRAINTS[constraint]
    bounds = [f"{float(x):g}" for x in re.findall(r"_bound=([-\d.e]+)", constraint)]
    integer = "an integer " if constraint.startswith("Integer") else ""
    if len(bounds) == 2:
        return f"{integer}between {bounds[0]} and {bounds[1]}"
    for name, words in _BOUNDS.items():
        if bounds and name in constraint:
            equal = "at least" if integer else words
            return f"{integer}{equal} {bounds[0]}"
    return f"within {constraint}"


# --- methods ------------------------------------------------------------------------------------


def _expand(distribution: Any, sizes: Sequence[Any], at: ast.AST) -> Any:
    shape = size(sizes, at)
    _check_shape((*shape, *distribution.event_shape), at)
    return distribution.expand(shape)


def _to_event(distribution: Any, given: Sequence[Any], at: ast.AST) -> Any:
    dims = len(distribution.batch_shape)
    number = given[0] if given else dims
    if len(given) > 1 or isinstance(number, bool) or not isinstance(number, (int, type(None))):
        raise Mistake("to_event takes a number of dimensions", at)
    number = dims if number is None else number
    if not 0 <= number <= dims:
        raise Mistake(
            f"to_event({number}): the batch shape {tuple(distribution.batch_shape)} has {dims} "
            f"dimension{'s' if dims != 1 else ''}",
            at,
        )
    made = torch.distributions.Independent(distribution, number)
    return distribution.to_event(number) if hasattr(distribution, "to_event") else made


def _mask(distribution: Any, given: Sequence[Any], at: ast.AST) -> Any:
    value = given[0] if len(given) == 1 else None
    if not isinstance(value, bool):
        value = as_tensor(value, at) if isinstance(value, (list, tuple)) else value
        if not (isinstance(value, Tensor) and value.dtype is torch.bool):
            raise Mistake("mask takes True, False or a list of these", at)
    return distribution.mask(value)


#: The methods that an expression may call.
_METHODS: Mapping[str, Callable[[Any, Sequence[Any], ast.AST], Any]] = {
    "expand": _expand,
    "to_event": _to_event,
    "mask": _mask,
}


def call_method(owner: Any, name: str, given: Arguments, call: ast.Call) -> Any:
    """What a method of a distribution returns.

    Raises:
        Mistake: it is no method of distributions, or refuses the arguments.
    """
    if not isinstance(owner, Distribution):
        raise Mistake(f"{in_words(owner)} has no method {name!r}", call)
    if name not in _METHODS:
        hint = did_you_mean(name, _METHODS, f"there are {', '.join(_METHODS)}")
        raise Mistake(f"no method {name!r} here; {hint}", call)
    args, kwargs = given
    try:
        made = _METHODS[name](owner, [*args, *kwargs.values()], call)
    except Mistake:
        raise
    except Exception as error:
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        batch = tuple(owner.batch_shape)
        raise Mistake(f"{name} of a batch of shape {batch}: {first}", call) from None
    _check_result(made, call)
    return made


def _check_result(made: Any, at: ast.AST) -> None:
    if isinstance(made, Distribution):
        _check_shape((*made.batch_shape, *made.event_shape), at)


def _check_shape(shape: Sequence[int], at: ast.AST) -> None:
    size([list(shape)], at)
