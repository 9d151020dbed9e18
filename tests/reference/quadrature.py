"""Reference values of the quadrature pairs: the definition at 22 digits, from the densities alone.

`python -m tests.reference.quadrature` writes `quadrature_values.json`, one row for every pair of
examples. Laws whose density overflows far out, where convergence is looked at, are integrated by
mpmath's own rule over pieces of the line. A row that takes longer than `PATIENCE` is left out, and
counted.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mpmath
from mpmath import mp

import pyro_kl
from pyro_kl.registry import families

from . import integrate

PATH = Path(__file__).with_name("quadrature_values.json")
DIGITS, WORKING_DIGITS = 20, 34
PATIENCE = 1  # seconds


def load() -> dict[str, list[dict[str, Any]]]:
    """By the name of the pair: rows of parameters `p`, `q` and `kl`."""
    return json.loads(PATH.read_text()) if PATH.exists() else {}


def by_pieces(p: integrate.Law, q: integrate.Law) -> Any:
    """The integral over pieces of the line, as far as p has mass; for finite KLs only."""
    with mp.workdps(WORKING_DIGITS):
        integrand = integrate.Integrand(p, q)

        def mass(y: Any) -> Any:
            log_p = integrand.log_p(y)
            return mp.exp(log_p) if log_p > -70 else mp.mpf(0)

        def at(y: Any) -> Any:
            weight = mass(y)
            return weight * integrand.log_ratio(y) if weight else weight

        ends = [mp.mpf(k) / 2 for k in range(-90, 91)]
        ends = sorted({*ends, *integrand.cuts()})
        ends = [y for y in ends if integrand.log_p(y) > -90]
        if abs(mp.quad(mass, ends) - 1) > mp.mpf(10) ** -15:
            raise ArithmeticError("p has mass beyond the pieces")
        return mp.quad(at, ends)


def value(p: Any, a: Any, q: Any, b: Any) -> Any:
    """KL(p || q) at about 20 digits."""
    try:
        return integrate.kl(p, a, q, b)
    except OverflowError:
        return by_pieces(integrate.Law(p, a), integrate.Law(q, b, as_prior=True))


def rows() -> Iterator[tuple[str, Any, Any, Any, Any]]:
    """Every quadrature pair of two families, on the cross product of the examples."""
    known = {family.distribution: family for family in families()}
    for pair in pyro_kl.registered():
        if pair.method == "quadrature" and {pair.p, pair.q} <= set(known):
            p, q = known[pair.p], known[pair.q]
            for a in p.examples:
                for b in q.examples:
                    yield pair.name, p, a, q, b


def coarser() -> None:
    """Fewer digits than the reference values of closed forms."""
    integrate.DIGITS, integrate.WORKING_DIGITS = DIGITS, WORKING_DIGITS
    integrate._NOTHING = 1.3 * WORKING_DIGITS * 2.302585


def main() -> int:
    """Compute the rows that are not there yet."""
    coarser()
    stored = {
        (name, repr(row["p"]), repr(row["q"])): row["kl"]
        for name, found in load().items()
        for row in found
    }
    table: dict[str, list[dict[str, Any]]] = {}
    late = 0

    def too_late(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, too_late)
    quick = "--quick" in sys.argv  # only what is stored, and laws that mpmath is fast with
    for i, (name, p, a, q, b) in enumerate(rows()):
        key = name, repr(dict(a)), repr(dict(b))
        if key not in stored and not (quick and "SoftAsymmetric" in name):
            signal.alarm(PATIENCE)
            try:
                stored[key] = mpmath.nstr(value(p, a, q, b), DIGITS).replace("+inf", "inf")
            except (TimeoutError, ArithmeticError):
                late += 1
                print(f"left out: {name} {dict(a)} {dict(b)}", flush=True)
            finally:
                signal.alarm(0)
        if key in stored:
            table.setdefault(name, []).append({"p": dict(a), "q": dict(b), "kl": stored[key]})
        if i % 100 == 99:
            print(f"{i + 1} rows", flush=True)
            PATH.write_text(_as_text(table))
    PATH.write_text(_as_text(table))
    print(f"{sum(map(len, table.values()))} rows, {late} left out")
    return 0


def _as_text(table: dict[str, list[dict[str, Any]]]) -> str:
    """One line for each row."""
    parts = []
    for name, found in table.items():
        lines = ",\n".join(f"    {json.dumps(row)}" for row in found)
        parts.append(f"  {json.dumps(name)}: [\n{lines}\n  ]")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
