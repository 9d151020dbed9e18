"""Which names the code of a function reads, and whose code it is: the user's or a library's."""

from __future__ import annotations

import dis
import os
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from itertools import takewhile
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

__all__ = [
    "CodeNames", "is_library_class", "is_library_function", "is_library_module", "names_in",
]  # fmt: skip

# These are libraries wherever they are installed, also from a folder with sources.
_LIBRARIES = frozenset({"torch", "pyro", "pyro_kl", "numpy", "scipy", "functorch", "builtins"})
_FOLDERS = tuple(
    os.path.join(os.path.realpath(folder), "")
    for key, folder in sysconfig.get_paths().items()
    if key in ("stdlib", "platstdlib", "purelib", "platlib")
)
_GLOBAL_OPERATIONS = frozenset(
    {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS", "STORE_GLOBAL"}
)


_READ_ALL = frozenset(
    {"vars", "__dict__", "__getattribute__", "asdict", "astuple", "fields", "getmembers"}
)


class CodeNames(NamedTuple):
    """Names in a function's code, those of the functions defined inside it included."""

    globals: tuple[str, ...]
    attributes: frozenset[str]  # and the identifiers in its strings: getattr(self, "scale")
    imports: tuple[str, ...]
    reads_computed_names: bool  # getattr(self, name)


@lru_cache(maxsize=4096)
def names_in(code: CodeType) -> CodeNames:
    """The names in a code object.

    Attributes are over-approximated by all names of the code: a value that is only compared in
    vain costs nanoseconds, one that is missed would be a wrong graph.
    """
    read, imported = dict[str, None](), dict[str, None]()
    attributes, instructions = set(code.co_names), list(dis.get_instructions(code))
    computes = not attributes.isdisjoint(_READ_ALL)
    for position, instruction in enumerate(instructions):
        if instruction.opname in _GLOBAL_OPERATIONS:
            read[instruction.argval] = None
            if instruction.argval in ("getattr", "hasattr"):
                computes |= not _has_constant_name(instructions[position + 1 :])
        elif instruction.opname == "IMPORT_NAME":
            imported[instruction.argval] = None
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = names_in(constant)
            read.update(dict.fromkeys(inner.globals))
            imported.update(dict.fromkeys(inner.imports))
            attributes |= inner.attributes
            computes |= inner.reads_computed_names
        else:
            attributes.update(_identifiers(constant))
    return CodeNames(tuple(read), frozenset(attributes), tuple(imported), computes)


def _identifiers(constant: Any) -> Iterator[str]:
    """The names in a string, which an attrgetter may read, or in a tuple of a class pattern."""
    if isinstance(constant, str):
        names = constant.split(".")
        yield from names if all(map(str.isidentifier, names)) else ()
    elif isinstance(constant, tuple):
        for part in constant:
            yield from _identifiers(part)


def _has_constant_name(instructions: list[dis.Instruction]) -> bool:
    """Whether the second argument of the call that follows is a constant: getattr(self.a, "b")."""
    operations = [each.opname for each in instructions if each.opname != "PUSH_NULL"]
    operations = list(takewhile(lambda name: not name.startswith(("CALL", "PRECALL")), operations))
    name = 1
    while operations[name : name + 1] == ["LOAD_ATTR"]:
        name += 1
    # An f-string and a concatenation begin with a constant, too.
    return operations[name : name + 1] == ["LOAD_CONST"] and all(
        operation.startswith("LOAD_") for operation in operations
    )


def is_library_function(function: FunctionType, home: frozenset[str]) -> bool:
    """Whether a function's code belongs to a library.

    Args:
        function: the function; the module that it says it is from is not asked, because
            `functools.wraps` copies that of another function.
        home: packages that are the user's although they are installed: those of model and guide.
    """
    module = function.__globals__.get("__name__") or ""
    return _is_library(str(module), function.__code__.co_filename, home)


def is_library_class(cls: type, home: frozenset[str]) -> bool:
    """Whether a class belongs to a library; see `is_library_function`."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if file is None and cls.__module__ != "__main__":
        return cls.__module__ in sys.modules  # a module in C; a class made by exec has no module
    return _is_library(cls.__module__, file or "", home)


def is_library_module(module: ModuleType, home: frozenset[str]) -> bool:
    """Whether a module belongs to a library; see `is_library_function`."""
    file = getattr(module, "__file__", None)
    if file is None:  # a module in C, or one that was made by hand
        return module.__name__ in sys.builtin_module_names
    return _is_library(module.__name__, file, home)


@lru_cache(maxsize=4096)
def _is_library(module: str, file: str, home: frozenset[str]) -> bool:
    package = module.partition(".")[0]
    if package in _LIBRARIES or file.startswith("<frozen"):
        return True
    if package in home or not os.path.isabs(file):
        return False
    file = os.path.realpath(file)
    return file.startswith(_FOLDERS) or "site-packages" in file or "dist-packages" in file
