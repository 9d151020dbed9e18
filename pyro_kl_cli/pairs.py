"""`pyro-kl pairs` and `pyro-kl classes`: tables of the index."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from typing import Any

from .index import IndexedPair, index
from .refused import Refused, did_you_mean
from .tables import table, width


def run(arguments: argparse.Namespace) -> str:
    """The registered pairs that were asked for."""
    methods = sorted({pair.method for pair in index().pairs})
    if arguments.method not in (None, *methods):
        otherwise = f"there are {', '.join(methods)}."
        hint = did_you_mean(arguments.method, methods, otherwise)
        raise Refused(f"no pair has the method {arguments.method!r}; {hint}")
    if len(arguments.family) > 2:
        raise Refused(f"pairs takes one class or two, not {len(arguments.family)}")
    sides = [index().registered_as(index().class_named(name)) for name in arguments.family]
    chosen = [
        pair
        for pair in index().pairs
        if arguments.method in (None, pair.method) and _has_sides(pair, sides)
    ]
    if not chosen:
        raise Refused(
            "no registered pair has all of that; `pyro-kl explain P Q` looks for an integral too"
        )
    if arguments.json:
        return json.dumps([as_dict(pair) for pair in chosen], indent=1, ensure_ascii=False)
    return _text(chosen)


def _has_sides(pair: IndexedPair, sides: Sequence[str]) -> bool:
    if len(sides) < 2:
        return all(side in (pair.p, pair.q) for side in sides)
    return {pair.p, pair.q} == set(sides)


def _text(pairs: Sequence[IndexedPair]) -> str:
    rows = [(p.name, p.method, p.finite, _error(p), p.reference) for p in pairs]
    text = table(("p || q", "method", "finite", "error", "reference"), rows)
    reasons = [f"  {pair.name}: {pair.replaces}" for pair in pairs if pair.replaces]
    if not reasons:
        return text
    columns = width()
    if columns is not None:
        reasons = [textwrap.fill(x, columns, subsequent_indent="    ") for x in reasons]
    title = "Formulas of torch's or Pyro's that these replace, and why:"
    return "\n".join([text, "", title, *reasons])


def _error(pair: IndexedPair) -> str:
    """The largest relative error that was measured."""
    return f"{pair.error[0]:.0e}" if pair.error else ""


def as_dict(pair: IndexedPair) -> dict[str, Any]:
    """A pair for JSON."""
    return {
        "p": pair.p,
        "q": pair.q,
        "method": pair.method,
        "finite": pair.finite,
        "relative_error": pair.error[0] if pair.error else None,
        "reference": pair.reference,
        "source": pair.source,
        "replaces": pair.replaces,
    }


def run_classes(arguments: argparse.Namespace) -> str:
    """Every class of pyro.distributions, and the method of the KL of two of its members."""
    header = ("class", "method", "where, or why not")
    if arguments.json:
        keys = ("class", "method", "reason")
        rows = [dict(zip(keys, row, strict=True)) for row in index().classes]
        return json.dumps(rows, indent=1, ensure_ascii=False)
    return table(header, index().classes)
