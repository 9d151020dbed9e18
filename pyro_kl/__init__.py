"""KL divergences for Pyro: exact where there is a formula, with the method of each value.

`import pyro_kl` registers its pairs with `torch.distributions.kl_divergence` and does nothing
else. What registers nothing is imported when it is asked for: `__init__.pyi` lists the public
names and their modules, for this file as for type checkers.
"""

from typing import Any

from . import families, structured, wrappers  # noqa: F401  importing registers
from .public_names import load, read
from .registry.entropy_method import install
from .registry.register import guard_upstream

guard_upstream()
install(lambda p: load(__name__, ".divergence.entropy", "exact_entropy")(p))

__version__ = "0.1.0"

_HOMES, __all__ = read(__name__)


def __getattr__(name: str) -> Any:
    """Import a public name, and keep it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = load(__name__, *_HOMES[name])
    return found


def __dir__() -> list[str]:
    """The public names alone: `dir` and tab completion leave out the rooms of the package."""
    return [*{**dict.fromkeys(__all__), **_HOMES}, "__version__"]
