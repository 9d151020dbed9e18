"""Make or check the reference values, by `python -m tests.conformance.reference`.

* without an option: write values.json, all pairs of families on all examples
* `--only Gamma` writes the pairs of one family and keeps the others
* `--missing` writes the rows that are not there yet and drops stale ones
* `--check` computes a random part again, with exit status 1 where it differs
* `--cases` prints the digits of every declared case, with exit status 1 likewise
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import Pool
from typing import Any

import mpmath
from mpmath import mp, mpf

import pyro_kl
from pyro_kl import Family, Pair
from pyro_kl.registry.register import families

from . import PATH, load, quadrature_values
from .multiprecision import closed_forms, integrate, multivariate_normal
from .multiprecision.densities import DENSITIES

STORED_DIGITS = 30
#: What a case may be off: the rounding of its decimal digits to a double, twice.
CASE_TOLERANCE = mpf(2) ** -52

Job = tuple[str, str, Mapping[str, Any], Mapping[str, Any]]


def by_name() -> dict[str, Family]:
    """The declared families."""
    return {family.name: family for family in families()}


def family_pairs() -> list[Pair]:
    """The registered pairs of two declared families: those that have densities to integrate.

    Not those that are or were integrals: these have a file and fewer digits of their own.
    """
    declared, others = {family.distribution for family in families()}, quadrature_values.load()
    return [
        r
        for r in pyro_kl.registered()
        if {r.p, r.q} <= declared and r.method != "quadrature" and r.name not in others
    ]


def jobs(only: str | None = None) -> Iterator[Job]:
    """Every pair, on the cross product of the two families' examples.

    One row is enough for a pair that is infinite whatever the parameters.
    """
    for pair in family_pairs():
        p, q = pair.p.__name__, pair.q.__name__
        if only in (None, p, q):
            last = 1 if pair.finite == "never" else None
            for a in by_name()[p].examples[:last]:
                for b in by_name()[q].examples[:last]:
                    yield p, q, a, b


def compute(job: Job) -> str:
    """The digits of one job, or "inf"."""
    p, q, a, b = job
    value = integrate.kl(by_name()[p], a, by_name()[q], b)
    return digits(value)


def digits(value: Any) -> str:
    """An mpmath number as it is stored."""
    return "inf" if value == mp.inf else mpmath.nstr(value, STORED_DIGITS)


def computed(todo: Sequence[Job], processes: int) -> Iterator[str]:
    """Compute in order, with a line of progress."""
    start = time.monotonic()
    with Pool(processes) as pool:
        for i, value in enumerate(pool.imap(compute, todo, chunksize=4), start=1):
            if i % 25 == 0 or i == len(todo):
                print(f"{i}/{len(todo)}  {time.monotonic() - start:.0f} s", flush=True)
            yield value


def write(only: str | None, processes: int) -> int:
    """Compute all values, or those of one family, and write the file."""
    table: dict[str, list[dict[str, Any]]] = load() if only else {}
    todo = list(jobs(only))
    for p, q, _, _ in todo:
        table[f"{p} || {q}"] = []
    for (p, q, a, b), value in zip(todo, computed(todo, processes), strict=True):
        table[f"{p} || {q}"].append({"p": dict(a), "q": dict(b), "kl": value})
    PATH.write_text(_as_text(table))
    print(f"wrote {len(todo)} values of {len(table)} pairs to {PATH.name}")
    return 0


def write_missing(processes: int) -> int:
    """Compute the rows that the file has not, drop those whose examples are gone."""
    stored = {
        (*name.split(" || "), repr(row["p"]), repr(row["q"])): row["kl"]
        for name, rows in load().items()
        for row in rows
    }
    every = list(jobs())
    todo = [job for job in every if _key(job) not in stored]
    stored |= dict(zip(map(_key, todo), computed(todo, processes), strict=True))
    table: dict[str, list[dict[str, Any]]] = {}
    for job in every:
        p, q, a, b = job
        row = {"p": dict(a), "q": dict(b), "kl": stored[_key(job)]}
        table.setdefault(f"{p} || {q}", []).append(row)
    PATH.write_text(_as_text(table))
    print(f"computed {len(todo)} of {len(every)} values")
    return 0


def _key(job: Job) -> tuple[str, ...]:
    p, q, a, b = job
    return p, q, repr(dict(a)), repr(dict(b))


def _as_text(table: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """JSON with one row to a line, that a diff can be read."""
    blocks = []
    for name in sorted(table):
        rows = ",\n".join(f"    {json.dumps(row)}" for row in table[name])
        blocks.append(f"  {json.dumps(name)}: [\n{rows}\n  ]")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def check(seed: int, count: int, processes: int) -> int:
    """Compute a seeded random part again."""
    todo = [
        (*name.split(" || "), row["p"], row["q"], row["kl"])
        for name, rows in load().items()
        for row in rows
    ]
    todo = random.Random(seed).sample(todo, min(count, len(todo)))
    wrong = 0
    values = computed([job[:4] for job in todo], processes)
    for (p, q, a, b, stored), value in zip(todo, values, strict=True):
        if value != stored:
            wrong += 1
            print(f"{p} || {q}  {a}  {b}: stored {stored}, now {value}")
    print(f"{wrong} of {len(todo)} differ")
    return int(wrong > 0)


# --- declared cases -----------------------------------------------------------------------------


def case_value(pair: Pair, a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    """The right value of a declared case; None for a class that no density is known of."""
    p, q = by_name().get(pair.p.__name__), by_name().get(pair.q.__name__)
    if p is not None and q is not None:
        return integrate.kl(p, a, q, b)
    if "log_density" in a:  # a point against a Normal
        with mp.workdps(integrate.WORKING_DIGITS):
            at = {name: integrate.exact(x) for name, x in b.items()}
            log_q = DENSITIES["Normal"](mp, integrate.exact(a["v"]), **at)
            return integrate.exact(a["log_density"]) - log_q
    if isinstance(a.get("loc"), list) and isinstance(b.get("loc"), list):
        return multivariate_normal.kl(a, b)
    if pair.p is pair.q and pair.p.__name__ in closed_forms.FORMULAS:
        return closed_forms.kl(pair.p.__name__, a, b)
    if a == b:  # one distribution under one map
        return mpf(0)
    return None


def check_cases() -> int:
    """Print the digits of every declared case, and those that are wrong."""
    wrong = 0
    for pair in pyro_kl.registered():
        for i, case in enumerate(pair.cases):
            value = case_value(pair, case.p, case.q)
            if value is None:
                print(f"{pair.name} [{i}]: no reference")
                continue
            right = mpf(case.value) == value or (
                abs(mpf(case.value) - value) <= CASE_TOLERANCE * abs(value)
            )
            wrong += not right
            mark = "" if right else f"   <- declared {case.value!r}"
            print(f"{pair.name} [{i}]  {mpmath.nstr(value, 22)}{mark}")
    print(f"{wrong} wrong")
    return int(wrong > 0)


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance.reference",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--cases", action="store_true")
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--only", metavar="FAMILY")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.cases:
        return check_cases()
    if options.check:
        return check(options.seed, options.count, options.processes)
    if options.missing:
        return write_missing(options.processes)
    return write(options.only, options.processes)


if __name__ == "__main__":
    sys.exit(main())
