"""`pyro-kl explain P Q`: the formula of a pair, from the index where the two are classes."""

from __future__ import annotations

import argparse
import json
import textwrap

from .index import IndexedPair, index
from .pairs import as_dict
from .tables import width


def run(arguments: argparse.Namespace) -> str:
    """The registered pair; the result of `kl` for the classes' examples, if there is none."""
    p, q = (index().class_named(name) for name in (arguments.p, arguments.q))
    pair = index().pair_of(p, q)
    if pair is None:
        from .answers import explained_by_kl

        return explained_by_kl(p, q)
    if arguments.json:
        return json.dumps(as_dict(pair), indent=1, ensure_ascii=False)
    return explained(pair)


def explained(pair: IndexedPair) -> str:
    """Method, condition, reference, error and derivation of a registered pair."""
    rows = {
        "method": pair.method,
        "finite": pair.finite,
        "reference": pair.reference,
        "error": _error_of(pair),
        "declared": pair.source,
    }
    if pair.replaces:
        rows["replaces"] = pair.replaces
    head = [f"KL({pair.name})", *(field(name, text) for name, text in rows.items())]
    derivation = [_filled(f"  {line}".rstrip()) for line in (pair.derivation or "").splitlines()]
    blocks = ["\n".join(head), "\n".join(derivation)]
    blocks += [f"  {name}\n{textwrap.indent(code, '    ')}" for name, code in pair.terms.items()]
    return "\n\n".join(blocks)


def field(name: str, text: str) -> str:
    """A line `  name   text` that fits the terminal."""
    return _filled(f"  {name:<9}  {text}", indent=13)


def _filled(line: str, indent: int | None = None) -> str:
    columns = width()
    if columns is None or len(line) <= columns:
        return line
    deep = len(line) - len(line.lstrip()) if indent is None else indent
    return textwrap.fill(line, columns, subsequent_indent=" " * deep, break_on_hyphens=False)


def _error_of(pair: IndexedPair) -> str:
    if pair.error is not None:
        error, values, kind = pair.error
        return f"{error:.0e} relative, the largest of {values} reference values ({kind})"
    if pair.method == "infinite":
        return "none: decided from the supports and moments"
    if pair.method == "quadrature":
        return "estimated for each value: pyro_kl.kl(p, q).error"
    return "not tabulated; the formula agrees with its worked cases"
