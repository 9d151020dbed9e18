"""A page for each structured class and wrapper that has registered pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import pyro_kl
from pyro_kl import Pair, registered
from pyro_kl.registry.pair import Case
from pyro_kl.registry.structured_family import StructuredFamily
from pyro_kl.registry.warnings import quiet

from .classes_of_pairs import formulas_of, pair_tables, structured_classes
from .pages import fence, table, toctree, write
from .pictures import convergence_picture, path_picture


def write_structured(root: Path) -> None:
    """docs/reference/structured: an index and the pages."""
    classes = structured_classes()
    folder = root / "docs/reference/structured"
    pages = {cls.__name__: _page(cls, folder) for cls in classes}
    rows = [(f"[{cls.__name__}]({cls.__name__}.md)", _summary(cls)) for cls in classes]
    pages["index"] = "\n\n".join(
        [
            "# Structured classes and wrappers",
            "Distributions of vectors, matrices, directions, sequences and trees, and "
            "distributions that wrap others. Univariate ones are "
            "[families](../families/index.md).",
            table(("class", "parameters of its worked cases"), rows),
            toctree([cls.__name__ for cls in classes], hidden=True),
        ]
    )
    write(folder, pages)


def _summary(cls: type[Any]) -> str:
    return ", ".join(_parameters(cls)) or "those of what it wraps"


def _parameters(cls: type[Any]) -> dict[str, str]:
    """The parameters of the declaration or of the first worked case, with their constraints."""
    for pair in registered():
        for side, make in ((pair.p, pair.make_p), (pair.q, pair.make_q)):
            if side is cls and isinstance(make, StructuredFamily) and pair.cases:
                given = pair.cases[0].p if side is pair.p else pair.cases[0].q
                return {name: _constraint(make.parameters.get(name)) for name in given}
    return {}


def _constraint(constraint: Any) -> str:
    if constraint is None:
        return "fixed"
    if hasattr(constraint, "base_constraint"):  # of vectors and matrices
        constraint = constraint.base_constraint
    words = repr(constraint).replace("()", "")
    return {"Real": "real", "GreaterThan(lower_bound=0.0)": "positive"}.get(words, words)


def _page(cls: type[Any], folder: Path) -> str:
    parameters = _parameters(cls)
    blocks = [f"# {cls.__name__}", f"`{_public(cls)}`"]
    if parameters:
        rows = [(f"`{name}`", words) for name, words in parameters.items()]
        blocks.append(table(("parameter", "values"), rows))
    blocks += [formulas_of(cls), _numbers(cls, folder), pair_tables(cls)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _public(cls: type[Any]) -> str:
    module = cls.__module__
    for public in ("torch.distributions", "pyro.distributions"):
        if module.startswith(public):
            module = public
    return f"{module}.{cls.__name__}"


def _numbers(cls: type[Any], folder: Path) -> str:
    """Worked cases of the class's pairs, computed with this version."""
    shown = [
        (pair, pair.cases[0])
        for pair in registered()
        if cls in (pair.p, pair.q) and pair.cases and pair.make_p
    ]
    if not shown:
        return ""
    shown.sort(key=lambda each: each[0].p is not each[0].q)
    blocks = ["## Computed with this version", _picture(*shown[0], cls, folder)]
    for pair, case in shown[:3]:
        blocks += [_arguments(pair, case), fence(_compared(pair, case))]
    return "\n\n".join(block for block in blocks if block)


def _picture(pair: Pair, case: Case, cls: type[Any], folder: Path) -> str:
    reason = getattr(pair.make_p, "samples", "")
    if reason:
        picture = path_picture(pair, case, folder, cls.__name__)
        return f"{picture}\n\nThe KL is not compared with a sampled one: {reason}.".strip()
    return convergence_picture(*pair.made(case), folder, cls.__name__)


def _arguments(pair: Pair, case: Case) -> str:
    rows = [
        (side, *(" ".join(f"`{name}` = {_short(x)}" for name, x in given.items()),))
        for side, given in (("p", case.p), ("q", case.q))
    ]
    return table(("", f"worked case of {pair.name}"), rows)


def _short(value: Any) -> str:
    tensor = torch.as_tensor(value)
    text = _in_digits(tensor.tolist())
    return text if len(text) < 60 else f"shape {tuple(tensor.shape)}"


def _in_digits(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_in_digits, value))}]"
    return f"{value:.6g}"


def _compared(pair: Pair, case: Case) -> str:
    p, q = pair.made(case)
    torch.manual_seed(0)
    with quiet():
        try:
            return str(pyro_kl.compare(p, q, num_samples=10_000))
        except Exception:  # without samples or a density there is the formula alone
            return f"KL({pair.name})\n  exact    {pyro_kl.kl(p, q)}"
