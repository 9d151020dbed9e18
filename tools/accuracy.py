"""The relative error of each pair: against 50-digit values, and where p is close to q.

For every pair of declared families the largest relative error over the reference values. For a
family against itself also over p and q that differ by 1e-2 down to 1e-6 (relative, one parameter
at a time) and over pairs far apart, with parameters from 1e-6 to 1e7, at the rounded parameters,
in float64 and float32. Errors above 1e-9 (float64) or 1e-4 (float32) are marked.

    python -m tools.accuracy [--only Gamma] [--write]

`--write` puts the errors against the reference values, rounded up, into tools/accuracy.json,
from which the documentation and the command line have them.
"""

import argparse
import json
import math

import torch

from tests.conformance.cases import DUOS, kl_of, relative_error
from tests.conformance.close_and_extreme import by_the_book, errors, far_pairs, near_pairs
from tests.conformance.reference.multiprecision import integrate

from .measured import ACCURACY

SIZES = (1e-6, 1e-3, 0.3, 1.0, 11.9, 60.0, 1e3, 1e5, 1e7)
STEPS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def against_reference(duo):
    """The largest relative error over the stored values that are finite and not 0."""
    rows = duo.measurable_rows()
    if not rows:
        return None
    return max(relative_error(kl_of(duo, row.p, row.q), row.kl) for row in rows), len(rows)


def rounded_up(error):
    """The error to one digit, with a margin for the functions of another processor's library.

    A measured error is the largest of a few sums of roundings, each of half a unit, or of a whole
    unit where a library's function is less exact: a factor of 2. The largest of a few other sums
    is less than twice that. Thirty operations on terms of the value's size count as half a unit
    each at least.
    """
    error = max(4 * error, 15 * 2.0**-52)
    unit = 10.0 ** math.floor(math.log10(error))
    return float(f"{math.ceil(error / unit) * unit:.0e}")


def next_to_itself(duo, dtype):
    """(worst, how many, how many above the tolerance, the worst row) near and far."""
    pairs = [*near_pairs(duo.p, STEPS, SIZES), *far_pairs(duo.p, SIZES)]
    found = errors(duo, pairs, dtype, floor=0.0)
    above = sum(row[0] > TOLERANCE[dtype] for row in found)
    return found[0][0], len(found), above, found[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="FAMILY")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    # only the integrals that stand in for a book's formula use them
    integrate.DIGITS, integrate.WORKING_DIGITS = 30, 50
    duos = [duo for duo in DUOS if arguments.only in (None, duo.p.name, duo.q.name)]
    table = {}
    print("against reference values of the densities")
    for duo in duos:
        if duo.pair.method == "infinite" or (found := against_reference(duo)) is None:
            continue
        error, count = found
        digits = 20 if duo.pair.method == "quadrature" else 50
        table[duo.pair.name] = {
            "error": rounded_up(error),
            "values": count,
            "reference": f"{digits} digits, from the densities",
        }
        print(f"  {duo.pair.name:<60} {error:8.1e}  {count} values  {duo.pair.method}")
    print("a family against itself, next to each other and far apart")
    for duo in (duo for duo in duos if duo.p is duo.q and by_the_book(duo.p)):
        for dtype, tolerance in TOLERANCE.items():
            worst, count, above, row = next_to_itself(duo, dtype)
            mark = f"  {above} above {tolerance:.0e}: {row[1:]}" if above else ""
            print(f"  {duo.pair.name:<60} {worst:8.1e}  {count} pairs  {str(dtype)[6:]}{mark}")
    if arguments.write:
        if arguments.only:  # the other families' rows stay
            table = {**json.loads(ACCURACY.read_text()), **table}
        lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(table.items()))
        ACCURACY.write_text("{\n" + lines + "\n}\n")
        print(f"wrote {len(table)} pairs to {ACCURACY.name}")


if __name__ == "__main__":
    main()
