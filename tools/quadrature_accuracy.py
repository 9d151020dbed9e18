"""Quadrature pairs at random parameters against an independent reference of 17 digits.

`python -m tools.quadrature_accuracy [--only NAME] [--sets 12] [--seed 0] [--every 1] [--all]`
prints for every pair the worst relative errors of the value and of the gradient, at the default
tolerance and at 1e-10; the number of values that were not within the tolerance and said so, which
are left out of the worst errors; and in how many cases the reported error bounds the real one.
`--wrong` prints each wrong case, as two constructor calls. The references are integrals and sums
of independent densities in extended precision (tests/conformance/reference); those that are worse
than 1e-8 are left out and counted. `--all` adds the closed forms, exact sums and infinite pairs of
the same families, whose error is taken to be 1e-12, relative.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections import Counter
from dataclasses import dataclass

import torch

import pyro_kl
from tests.conformance.cases import DUOS, QUADRATURE
from tests.conformance.reference.extended_precision.kl import knows
from tests.conformance.reference.quadrature_values import good
from tests.conformance.reference.random_cells import EXACT, FLOOR, GOOD_SLOPE, SMALL, Cell, found
from tests.conformance.reference.random_members import random_pairs

ASKED = (1e-6, 1e-10)
ULPS = 4 * 2.0**-52


@dataclass
class Measured:
    """The errors of one value at one tolerance."""

    name: str
    asked: float
    error: float  # relative to the value, beyond the floor
    short: bool  # whether it says so
    bounded: bool
    gradient: float  # nan without a reference
    what: str

    @property
    def wrong(self) -> str:
        found = ["error not bounded"] * (not self.bounded)
        found += ["value"] * (not self.short and not self.error <= self.asked)
        return ", ".join(found + ["gradient"] * (not self.short and self.gradient > 1e-5))


def measure(duo, a, b, right, asked):
    """Value, error and gradient of one pair of distributions, against the reference."""
    cell = Cell(duo.p, duo.q, a, b, torch.float64)
    got = found(cell, asked)
    if isinstance(got, str):
        return f"{cell} {got}"
    value, exact = got.value, float(right.kl)
    what = f"{cell} = {exact:.17g}, not {value:.17g}"
    if math.isinf(exact) or math.isinf(value):
        return what if value != exact else ""
    off = float(abs(right.kl - value))
    told = EXACT * abs(exact) if got.told is None else got.told
    return Measured(
        duo.id,
        asked,
        max(off - FLOOR, 0.0) / abs(exact) if exact else 0.0,
        got.short,
        off <= told + ULPS * abs(exact) + right.error,
        gradient_error(got.slopes, right) if got.slopes else math.nan,
        f"{what} (off {off:.2g}, told {told:.2g})",
    )


def gradient_error(slopes, right):
    """The worst relative error of a derivative; nan if no reference of them is good."""
    known = {key: x for key, (x, off) in right.slopes.items() if off <= GOOD_SLOPE * abs(x)}
    if not known:
        return math.nan
    largest = max(map(abs, known.values()))
    return max(abs(slopes[key] - x) / max(abs(x), SMALL * largest) for key, x in known.items())


def worst(numbers):
    return max((x for x in numbers if not math.isnan(x)), default=math.nan)


def share(cells):
    return f"{sum(c.bounded for c in cells)}/{len(cells)}"


def report(cells, asked):
    """One line of a summary for the cells at one tolerance."""
    cells = [c for c in cells if c.asked == asked]
    kept = [c for c in cells if not c.short]
    bounded = sum(c.bounded for c in cells) / len(cells)
    gradients = [c.gradient for c in kept if not math.isnan(c.gradient)]
    top = max(kept, key=lambda c: c.error)
    steepest = max((c for c in kept if not math.isnan(c.gradient)), key=lambda c: c.gradient)
    print(
        f"asked {asked:g}: {len(cells)} finite values; worst relative error {top.error:.2g} "
        f"({top.name}), {sum(c.error > asked for c in kept)} above what was asked in silence; "
        f"{len(cells) - len(kept)} said to be short; the reported error bounds the real one in "
        f"{bounded:.3%}; gradients: {len(gradients)}, {sum(g > 1e-5 for g in gradients)} above "
        f"1e-5, worst {steepest.gradient:.2g} ({steepest.name}), "
        f"median {sorted(gradients)[len(gradients) // 2]:.2g}"
    )


def measure_pair(duo, options, count):
    """The errors of one pair at random parameters and both tolerances; `count` is added to."""
    cells = []
    finite = 0 if duo.pair.method == "infinite" else math.ceil(0.75 * options.sets)
    drawn = random_pairs(duo.p, duo.q, options.sets, finite=finite, seed=options.seed, slopes=True)
    for a, b, right in drawn:
        count["cells"] += 1
        if not good(right):
            count["without a reference"] += 1
            continue
        count["infinite"] += math.isinf(right.kl)
        for asked in ASKED:
            measured = measure(duo, a, b, right, asked)
            if isinstance(measured, Measured):
                cells.append(measured)
            elif measured:
                count["WRONG"] += 1
                print("wrong", measured)
    return cells


def print_pair(duo, cells, wrong):
    """One row: the worst errors at each tolerance, and how many are short or bounded."""
    numbers = ""
    for asked in ASKED:
        kept = [c for c in cells if c.asked == asked and not c.short]
        numbers += f"{worst(c.error for c in kept):9.1e}{worst(c.gradient for c in kept):9.1e}"
    short = sum(c.short for c in cells)
    print(f"{duo.id:50}{len(cells) // 2:7}{numbers} {short:5} {share(cells)}", flush=True)
    for c in cells:
        if wrong and c.wrong:
            print(f"  {c.wrong} at {c.asked:g}, gradient {c.gradient:.1e}: {c.what}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=12)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="pairs whose name, such as Beta-Cauchy, has it")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--wrong", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    methods = Counter(pair.method for pair in pyro_kl.registered())
    print("pairs by method:", dict(methods), "in all", sum(methods.values()))
    print(f"{'pair':50}{'finite':>7}{'1e-6':>9}{'grad':>9}{'1e-10':>9}{'grad':>9} short bounded")
    known = [duo for duo in DUOS if knows(duo.p.name, duo.q.name)]
    duos = known if options.all else QUADRATURE
    duos = [duo for duo in duos if options.only in duo.id][:: options.every]
    every, count = [], Counter()
    for duo in duos:
        cells = measure_pair(duo, options, count)
        print_pair(duo, cells, options.wrong)
        every += cells
    print(f"{len(duos)} pairs, {dict(count)}")
    for asked in ASKED:
        report(every, asked)
    bounded = sum(c.bounded for c in every)
    print(f"coverage: {bounded} of {len(every)}, {bounded / len(every):.3%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
