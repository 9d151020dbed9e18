"""Reference values of the divergences next to the KL, and of entropies.

`python -m tests.conformance.reference.divergence_values` writes `divergence_values.json`: for
every pair of families with a density or with a mass, Renyi's divergence at `ORDERS` and Jensen and
Shannon's of `ROWS` pairs of examples, and the entropy of every example. Densities are integrated
in extended precision, to 17 digits, and masses summed at 50. Each row says how good it is.
"""

from __future__ import annotations

import json
import math
import sys
import zlib
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

from pyro_kl import Family
from pyro_kl.registry.register import families

from .extended_precision import divergences as integrals
from .extended_precision.densities import CONTINUOUS
from .multiprecision import divergence_sums as sums
from .multiprecision.densities import DENSITIES
from .quadrature_values import write

PATH = Path(__file__).with_name("divergence_values.json")
ORDERS = (0.1, 0.5, 0.9, 1 - 1e-6, 1 + 1e-6, 2.0, 5.0)
#: Pairs of examples for each pair of families.
ROWS = 2
#: So many pairs of examples are tried for one with finite divergences.
TRIES = 3
#: A value whose relative error is above this is left out.
GOOD = 1e-11

Answer = tuple[float, float]
Row = dict[str, Any]


def load() -> dict[str, list[Row]]:
    """By the name of the pair: rows of `p`, `q`, `renyi`, `jensen_shannon` and their `error`.

    By the name of a family: rows of `p`, `entropy` and its `error`. The error is that of a value
    over the larger of it and a thousandth; a value that is not known to enough digits is None.
    """
    return json.loads(PATH.read_text())


def pairs() -> Iterator[tuple[Family, Family]]:
    """Two families with densities that are integrated here, or with masses."""
    known = [f for f in families() if f.name in DENSITIES]
    for p, q in product(known, repeat=2):
        if p.support.discrete == q.support.discrete and any(True for _ in cells(p, q)):
            yield p, q


def _is_on_one_turn(family: Family, example: Any, other: Family) -> bool:
    """Whether the other one is on no circle, or this one on the turn of it from -pi to pi."""
    if other.support.period is None or family is other:
        return True
    low, high = CONTINUOUS[family.name].ends(**example)
    return bool(-math.pi <= low and high <= math.pi)


def questions(p: Family, a: Any, q: Family, b: Any) -> list[Callable[[], Answer]]:
    """The divergences at `ORDERS`, then Jensen and Shannon's."""
    if p.name in CONTINUOUS:
        return [
            *(lambda o=o: integrals.renyi(p.name, a, q.name, b, o) for o in ORDERS),
            lambda: integrals.jensen_shannon(p.name, a, q.name, b),
        ]
    both = sums.Counts(p, a), sums.Counts(q, b)
    return [
        *(lambda o=o: (float(sums.renyi(*both, o)), 0.0) for o in ORDERS),
        lambda: (float(sums.jensen_shannon(*both)), 0.0),
    ]


def entropy(p: Family, a: Any) -> Answer:
    """The entropy and its error."""
    if p.name in CONTINUOUS:
        return integrals.entropy(p.name, a)
    return float(sums.entropy(sums.Counts(p, a))), 0.0


def cells(p: Family, q: Family) -> list[tuple[Any, Any]]:
    """Pairs of different examples in a random order that stays."""
    found = [
        (a, b)
        for a, b in product(p.examples, q.examples)
        if (p is not q or a != b) and _is_on_one_turn(p, a, q) and _is_on_one_turn(q, b, p)
    ]
    Random(zlib.crc32(f"{p.name} || {q.name}".encode())).shuffle(found)
    return found


def rows(p: Family, q: Family) -> list[Row]:
    """The first cell with a finite divergence at all orders, or the best; then the others."""
    order = []
    for a, b in cells(p, q):
        found = [question() for question in questions(p, a, q, b)]
        order.append((a, b, found))
        found_one = any(_finite(x[2]) == len(ORDERS) + 1 for x in order)
        if len(order) == TRIES or (len(order) >= ROWS and found_one):
            break
    order.sort(key=lambda cell: -_finite(cell[2]))
    return [_row(*cell) for cell in order[:ROWS]]


def _finite(answers: list[Answer]) -> int:
    return sum(math.isfinite(value) for value, _ in answers)


def _row(a: Any, b: Any, answers: list[Answer]) -> Row:
    values = [_stored(*answer) for answer in answers]
    known = [answer for answer, x in zip(answers, values, strict=True) if isinstance(x, float)]
    error = float(f"{max(map(_relative, known), default=0.0):.1e}")
    parts = {"renyi": values[:-1], "jensen_shannon": values[-1], "error": error}
    return {"p": dict(a), "q": dict(b), **parts}


def _relative(answer: Answer) -> float:
    return answer[1] / max(abs(answer[0]), 1e-3)


def _stored(value: float, error: float) -> float | str | None:
    """A number, "inf", or None where too little is known."""
    if math.isinf(value):
        return "inf"
    if math.isnan(value) or not _relative((value, error)) <= GOOD:
        return None
    return value if abs(value) > error else 0.0


def entropies(p: Family) -> list[Row]:
    """Those of all examples."""
    found = [(a, entropy(p, a)) for a in p.examples]
    return [
        {"p": dict(a), "entropy": _stored(*x), "error": float(f"{_relative(x):.1e}")}
        for a, x in found
    ]


def main() -> int:
    """Compute what is missing or of other examples; all of the families that are arguments."""
    only = {*sys.argv[1:]}
    before = load() if PATH.exists() else {}
    jobs = {p.name: (p,) for p in families() if p.name in DENSITIES}
    jobs |= {f"{p.name} || {q.name}": (p, q) for p, q in pairs()}
    table = {name: before[name] for name in jobs if name in before}
    for name, of in jobs.items():
        if {family.name for family in of} & only or not _is_current(table.get(name), of):
            table[name] = entropies(*of) if len(of) == 1 else rows(*of)
            write(PATH, {name: table[name] for name in jobs if name in table})
    print(f"{len(table)} entries, {sum(map(len, table.values()))} rows")
    return 0


def _is_current(found: list[Row] | None, of: tuple[Family, ...]) -> bool:
    """Whether the rows are of examples that the families have today."""
    return found is not None and all(
        row[side] in map(dict, family.examples)
        for row in found
        for side, family in zip("pq", of, strict=False)
    )


if __name__ == "__main__":
    sys.exit(main())
