"""`pyro-kl explain P Q`: the formula of a pair, from the index where the two are classes."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Mapping

from .expressions.syntax import is_class_name
from .index import IndexedPair, index
from .pairs import as_dict
from .text import fields, filled


def run(arguments: argparse.Namespace) -> str:
    """The registered pair of two classes; else what `kl` finds, which imports torch."""
    if is_class_name(arguments.p) and is_class_name(arguments.q):
        pair = index().pair_of(*map(index().class_named, (arguments.p, arguments.q)))
        if pair is not None:
            if arguments.json:
                return json.dumps(as_dict(pair), indent=1, ensure_ascii=False)
            return explained(pair)
    from .answers import explained_by_kl

    return explained_by_kl(arguments)


def explained(pair: IndexedPair, own: Mapping[str, str] | None = None) -> str:
    """Method, condition, reference, error and derivation of a registered pair.

    Args:
        pair: the pair.
        own: more lines by their names: two distributions, and their KL.
    """
    rows = {
        "method": pair.method,
        "finite": pair.finite,
        "reference": pair.reference,
        "error": _error_of(pair),
        "declared": pair.source,
    }
    if pair.replaces:
        rows["replaces"] = pair.replaces
    head = f"KL({pair.name})\n{fields({**rows, **(own or {})})}"
    derivation = [filled(f"  {line}".rstrip()) for line in (pair.derivation or "").splitlines()]
    blocks = [head, "\n".join(derivation)]
    blocks += [f"  {name}\n{_code(code)}" for name, code in pair.terms.items()]
    return "\n\n".join(blocks)


def _code(lines: str) -> str:
    """Indented code; a long line goes on further to the right."""
    indented = textwrap.indent(lines, "    ").splitlines()
    return "\n".join(filled(x, len(x) - len(x.lstrip()) + 4) for x in indented)


def _error_of(pair: IndexedPair) -> str:
    if pair.error is not None:
        error, values, kind = pair.error
        return f"{error:.0e} relative, the largest of {values} reference values ({kind})"
    if pair.method == "infinite":
        return "none: decided from the supports and moments"
    if pair.method == "quadrature":
        return "estimated for each value: pyro_kl.kl(p, q).error"
    return "not tabulated; the formula agrees with its worked cases"
