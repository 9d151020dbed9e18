"""The classes that have registered pairs: where their pages are, and the rows of their tables."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import pyro.distributions
from pyro.distributions.torch_distribution import TorchDistribution
from torch.distributions import Distribution

from pyro_kl import Pair, registered
from pyro_kl.registry.register import families
from tools.measured import measured

from .citations import cited
from .pages import fence, table


@cache
def family_names() -> frozenset[str]:
    """The names of the declared families of torch and Pyro."""
    return frozenset(family.name for family in families())


def structured_classes() -> list[type[Any]]:
    """The other classes with registered pairs: of vectors, of sequences, and wrappers."""
    found = {cls for pair in registered() for cls in (pair.p, pair.q)}
    found = {cls for cls in found if cls.__name__ not in family_names() and not is_any(cls)}
    return sorted(found, key=lambda cls: cls.__name__)


def is_any(cls: type[Any]) -> bool:
    """Whether a class is the base class of all distributions, torch's or Pyro's."""
    return cls in (Distribution, pyro.distributions.Distribution, TorchDistribution)


def page_of(cls: type[Any], *, depth: int = 1) -> str:
    """The page of a class, seen from a page that is `depth` folders below reference/."""
    if is_any(cls):
        return ""
    folder = "families" if cls.__name__ in family_names() else "structured"
    return f"{'../' * depth}{folder}/{cls.__name__}.md"


def linked(cls: type[Any]) -> str:
    """The name of a class as a link to its page."""
    page = page_of(cls)
    return f"[{cls.__name__}]({page})" if page else "any distribution"


def error_of(pair: Pair) -> str:
    """The largest measured relative error, in words."""
    found = measured().get(pair.name)
    return f"{found['error']:.0e}" if found else ""


def pairs_as(side: str, cls: type[Any]) -> list[Pair]:
    """The pairs in which a class is p, or q."""
    return [pair for pair in registered() if getattr(pair, side) is cls]


def pair_tables(cls: type[Any]) -> str:
    """The pairs of a class as p and as q."""
    blocks = []
    for side, other, title in (
        ("p", "q", f"KL({cls.__name__} || q)"),
        ("q", "p", f"KL(p || {cls.__name__})"),
    ):
        found = pairs_as(side, cls)
        if found:
            blocks += [f"## {title}", _pair_table(found, other)]
    replaced = [pair for pair in registered() if pair.replaces and cls in (pair.p, pair.q)]
    if replaced:
        blocks += [
            "## Replaced formulas of torch and Pyro",
            table(("p || q", "why"), [(pair.name, pair.replaces or "") for pair in replaced]),
        ]
    return "\n\n".join(blocks)


def _pair_table(pairs: Sequence[Pair], other: str) -> str:
    rows = [
        (linked(getattr(pair, other)), pair.method, pair.finite, error_of(pair), _origin(pair))
        for pair in pairs
        if pair.finite != "never"
    ]
    head = (other, "method", "finite if", "largest relative error", "reference")
    blocks = [table(head, rows)] if rows else []
    never = [getattr(pair, other) for pair in pairs if pair.finite == "never"]
    if never:
        blocks.append(f"Infinite for all parameters: {', '.join(_in_short(never))}.")
    return "\n\n".join(blocks)


def _origin(pair: Pair) -> str:
    """The reference; that of a derived closed form is the references of both declarations."""
    composed = pair.derived and pair.method == "closed form"
    return "the declarations of both" if composed else cited(pair.reference)


def _in_short(classes: Sequence[type[Any]]) -> list[str]:
    """Links to classes; "every discrete family" where all of them are among the classes."""
    names = {cls.__name__ for cls in classes}
    short = []
    for discrete, kind in ((False, "continuous"), (True, "discrete")):
        all_of_it = {x.name for x in families() if x.support.discrete == discrete}
        if all_of_it <= names:
            short.append(f"every {kind} family")
            names -= all_of_it
    return [*(linked(cls) for cls in classes if cls.__name__ in names), *short]


def formulas_of(cls: type[Any]) -> str:
    """The docstrings of the formulas that are declared for single pairs of a class."""
    docs: dict[str, list[str]] = {}
    for pair in registered():
        if cls in (pair.p, pair.q) and not pair.derived and pair.formula.__doc__:
            docs.setdefault(inspect.cleandoc(pair.formula.__doc__), []).append(pair.name)
    if not docs:
        return ""
    blocks = ["## Formulas"]
    for doc, names in docs.items():
        blocks += ["KL of " + ", ".join(f"`{name}`" for name in names) + ":", fence(doc)]
    return "\n\n".join(blocks)


def code_of(functions: Iterable[Any]) -> str:
    """The source code of functions, each once."""
    sources: dict[str, None] = {}
    for function in functions:
        try:
            sources[textwrap.dedent(inspect.getsource(function)).strip()] = None
        except (OSError, TypeError):  # torch's own functions have no Python source
            continue
    return "\n\n".join(source.rstrip(",") for source in sources)
