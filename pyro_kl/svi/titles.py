"""How messages call the functions and objects that a model consists of."""

from __future__ import annotations

from functools import partial
from types import FunctionType, MethodType
from typing import Any

from pyro.poutine.messenger import Messenger

__all__ = ["package_of", "title_of"]


def title_of(thing: Any) -> str:
    """The name of a function, of a class, or of the class of an object."""
    if isinstance(thing, FunctionType):
        name = thing.__qualname__.rpartition("<locals>.")[2]
        line = thing.__code__.co_firstlineno
        return f"the lambda in line {line}" if name == "<lambda>" else name
    if isinstance(thing, partial):
        kind = "handlers" if _is_handled(thing) else "partial"
        return f"the {kind} of {title_of(_function_of(thing))}"
    if isinstance(thing, MethodType):
        return title_of(thing.__func__)
    return f"class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__


def package_of(thing: Any) -> str:
    """The package that a function or the class of an object is from."""
    if isinstance(thing, partial):
        return package_of(_function_of(thing))
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return str(module).partition(".")[0]


def _is_handled(call: partial) -> bool:
    """Whether this is `handler(function)` of Pyro, which holds a partial of both."""
    inner = call.func
    return isinstance(inner, partial) and any(isinstance(it, Messenger) for it in inner.args)


def _function_of(thing: Any) -> Any:
    """The function in a partial, without Pyro's handlers around it."""
    while isinstance(thing, partial):
        inner: Any = thing.func
        thing = inner.args[1] if _is_handled(thing) else inner
    return thing
