"""Reference values of the quadrature pairs: the definition at 17 digits.

`python -m tests.conformance.reference.quadrature_values` writes `quadrature_values.json`: a row
for every pair of examples, and random ones where fewer than `FEWEST` of those are finite. Each row
says how good it is; one that is worse than `Truth.good` is left out, and counted. The file is
written after each pair. A pair that got a closed form keeps its rows here, unless mpmath has
computed some for `values.json`.

A family that has no density in `extended_precision` is integrated by mpmath from its density in
`multiprecision`: right, and slow. The former takes milliseconds, and lets
`tools.quadrature_accuracy` draw the parameters of the family at random.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import pyro_kl
from pyro_kl import Family
from pyro_kl.registry.register import families

from . import load as load_exact
from .extended_precision.kl import Truth, knows, truth
from .multiprecision import integrate
from .random_members import random_pairs

PATH = Path(__file__).with_name("quadrature_values.json")
FEWEST = 3

Rows = list[dict[str, Any]]


def load() -> dict[str, Rows]:
    """By the name of the pair: rows of parameters `p`, `q`, `kl` and its `error`."""
    return json.loads(PATH.read_text()) if PATH.exists() else {}


def pairs() -> Iterator[tuple[str, Family, Family]]:
    """Every quadrature pair of two families, and those that were one."""
    known = {family.distribution: family for family in families()}
    stored = load().keys() - load_exact().keys()
    for pair in pyro_kl.registered():
        ours = pair.method == "quadrature" or pair.name in stored
        if ours and {pair.p, pair.q} <= set(known):
            yield pair.name, known[pair.p], known[pair.q]


def good(right: Truth) -> bool:
    """Whether it is a reference."""
    return right.good


def by_book(p: Family, a: Any, q: Family, b: Any) -> Truth:
    """From the densities in extended precision: milliseconds."""
    return truth(p.name, a, q.name, b)


def by_declaration(p: Family, a: Any, q: Family, b: Any) -> Truth:
    """From the densities that the families declare, on mpmath numbers: seconds, or minutes."""
    kl = np.longdouble(str(integrate.kl(p, a, q, b)))
    return Truth(kl, 1e-18 * abs(float(kl)) if np.isfinite(kl) else 0.0, 0, {})


def rows(p: Family, q: Family) -> tuple[Rows, int]:
    """Those of one pair, and how many are left out."""
    in_book = knows(p.name, q.name)
    find = by_book if in_book else by_declaration
    found = [(a, b, find(p, a, q, b)) for a in p.examples for b in q.examples]
    missing = FEWEST - sum(bool(np.isfinite(right.kl)) and good(right) for *_, right in found)
    if in_book and missing > 0:
        found += random_pairs(p, q, missing, finite=missing)
    kept = [_row(a, b, right) for a, b, right in found if good(right)]
    return kept, len(found) - len(kept)


def _row(a: Any, b: Any, right: Truth) -> dict[str, Any]:
    kl = right.kl if abs(right.kl) > right.error else 0.0  # the same distribution in two families
    kl = np.format_float_scientific(kl, precision=19, unique=False, trim="0")
    return {"p": dict(a), "q": dict(b), "kl": kl, "error": float(f"{right.error:.1e}")}


def main() -> int:
    """Compute all rows, or with an argument those of one family."""
    only = sys.argv[1:]
    table, left_out = load(), 0
    current = {name: (p, q) for name, p, q in pairs()}
    for name in [*table]:
        if name not in current:
            del table[name]
    for name, (p, q) in current.items():
        if not only or {p.name, q.name} & {*only}:
            table[name], late = rows(p, q)
            left_out += late
            write(PATH, {name: table[name] for name in current if name in table})
    print(f"{len(table)} pairs, {sum(map(len, table.values()))} rows, {left_out} left out")
    return 0


def write(path: Path, table: dict[str, Any]) -> None:
    """One line for each row; an interruption leaves the file before or the one after."""
    parts = []
    for name, found in table.items():
        lines = ",\n".join(f"    {json.dumps(row)}" for row in found)
        parts.append(f"  {json.dumps(name)}: [\n{lines}\n  ]")
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text("{\n" + ",\n".join(parts) + "\n}\n")
    unfinished.replace(path)


if __name__ == "__main__":
    sys.exit(main())
