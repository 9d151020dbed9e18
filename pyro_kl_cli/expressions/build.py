"""A distribution is built from the tree of its expression."""

from __future__ import annotations

import ast
from inspect import isclass
from typing import Any

from torch import Tensor
from torch.distributions import Distribution, Transform

from . import values
from .call import call_method, construct
from .mistake import Mistake
from .names import meaning
from .syntax import dotted, parse


def build(text: str) -> Distribution:
    """The distribution that an expression describes.

    Args:
        text: for example ``"Normal(0, 1).expand([3]).to_event(1)"``. It is parsed, and built by
            this package's own code from classes of distributions and transforms; nothing in it is
            evaluated by Python.

    Raises:
        Mistake: it is no expression of a distribution; the message says what is wrong, and where.

    Example:
        >>> build("Gamma(2, 1)")
        Gamma(concentration: 2.0, rate: 1.0)
        >>> build("Gamma(2, -1)")
        Traceback (most recent call last):
        pyro_kl_cli.expressions.mistake.Mistake: Gamma: rate must be greater than 0, not -1.0
          Gamma(2, -1)
                   ^
    """
    try:
        tree = parse(text)
        found = _value(tree)
        if not isinstance(found, Distribution):
            what = f"the class {found.__name__}" if isclass(found) else values.in_words(found)
            raise Mistake(f"this is {what}, not a distribution", tree)
    except Mistake as mistake:
        raise mistake.within(text.strip(" \t")) from None
    return found


def _value(node: ast.expr) -> Any:
    """The value of a part of the tree."""
    match node:
        case ast.Constant():
            return _constant(node)
        case ast.List() | ast.Tuple():
            return [_value(x) for x in node.elts]
        case ast.UnaryOp():
            return _signed(node)
        case ast.BinOp():
            return values.arithmetic(node.op, _value(node.left), _value(node.right), node)
        case ast.Name() | ast.Attribute():
            return _named(node)
        case ast.Call():
            return _called(node)
    raise Mistake("an expression has calls, lists, names and numbers", node)


def _constant(node: ast.Constant) -> Any:
    value = node.value
    if isinstance(value, (bool, str)) or value is None:
        return value
    if isinstance(value, (int, float)):
        return values.checked_number(value, node)
    raise Mistake("this is no number of an expression", node)


def _signed(node: ast.UnaryOp) -> Any:
    value = _value(node.operand)
    if not (values.is_number(value) or isinstance(value, Tensor)):
        raise Mistake(f"a sign belongs to a number, not to {values.in_words(value)}", node)
    return -value if isinstance(node.op, ast.USub) else value


def _named(node: ast.Name | ast.Attribute) -> Any:
    """What a name means without a call: a number, a constraint, the inverse of a transform."""
    name = dotted(node)
    if name is None:
        assert isinstance(node, ast.Attribute)
        owner = _value(node.value)
        if isinstance(owner, Transform) and node.attr == "inv":
            return owner.inv
        raise Mistake(f"{values.in_words(owner)} has no {node.attr!r} here", node)
    found = meaning(name, node)
    if isclass(found) or callable(found):
        raise Mistake(f"{name} needs its arguments: {name}(...)", node)
    return found


def _called(node: ast.Call) -> Any:
    name = dotted(node.func)
    if name is None and not isinstance(node.func, ast.Attribute):
        raise Mistake("only a name can be called", node)
    function = None if name is None else meaning(name, node.func)
    given = (
        [_value(x) for x in node.args],
        {str(keyword.arg): _value(keyword.value) for keyword in node.keywords},
    )
    if function is None:
        assert isinstance(node.func, ast.Attribute)
        return call_method(_value(node.func.value), node.func.attr, given, node)
    if isclass(function):
        return construct(function, given, node)
    if not callable(function):
        raise Mistake(f"{name} is not called: it is {values.in_words(function)}", node)
    try:
        return function(*given[0], **given[1], at=node)
    except TypeError:
        raise Mistake(f"{name} does not take these arguments", node) from None
