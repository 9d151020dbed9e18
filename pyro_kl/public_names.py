"""Where the public names are: read from the stub `__init__.pyi`, imported when asked for.

The idea is that of Scientific Python's SPEC 1 (lazy loading of submodules and functions).
"""

import ast
import pkgutil
from importlib import import_module
from typing import Any

#: The module of a name, and the name there; a module itself has the name None.
Home = tuple[str, str | None]


def read(package: str) -> tuple[dict[str, Home], list[str]]:
    """The home of each name that the stub of a package imports, and its `__all__`."""
    stub = pkgutil.get_data(package, "__init__.pyi")
    assert stub is not None  # it lies beside __init__.py, also in a zip file
    homes: dict[str, Home] = {}
    public: list[str] = []
    for node in ast.parse(stub).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                home = (f".{node.module}", alias.name) if node.module else (f".{alias.name}", None)
                homes[alias.asname or alias.name] = home
        elif isinstance(node, ast.Assign):
            public = ast.literal_eval(node.value)
    return homes, public


def load(package: str, module: str, name: str | None) -> Any:
    """Import a name, or a module."""
    found = import_module(module, package)
    return found if name is None else getattr(found, name)
