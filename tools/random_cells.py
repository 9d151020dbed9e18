"""Random parameters of every deterministic pair, compared with an independent reference.

`python -m tools.random_cells [--cells 3000] [--seed 0] [--mapped] [--only NAME]` draws
members of two families, every parameter log-uniform between 1e-4 and 1e4 at the most, in float64
or in float32, with `--mapped` under random maps on one side or on both. It prints every wrong
value, reported error or gradient (`!`), every pair without a KL (`-`) or a reference (`?`), with
parameters that can be typed in again, and counts. The exit status is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import numpy as np

from tests.conformance.cases import DUOS
from tests.conformance.reference.random_cells import cells, faults, found, random_pairs_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="pairs whose name, such as Beta-Cauchy, has it")
    parser.add_argument("--mapped", action="store_true")
    options = parser.parse_args()
    duos = [duo for duo in DUOS if options.only in duo.id]
    pairs = random_pairs_of(duos, mapped=options.mapped)
    count: Counter[str] = Counter()
    for cell in cells(pairs, options.cells, options.seed, mapped=options.mapped):
        right = cell.truth()
        if not right.good:
            count["without a reference"] += 1
            print("?", cell, right.kl, right.error)
            continue
        got = found(cell)
        if isinstance(got, str):
            declined = got.startswith("declined")
            count["declined" if declined else "raised"] += 1
            print("-" if declined else "!", cell, got)
            continue
        count["infinite" if np.isinf(right.kl) else "finite"] += 1
        count["said to be short"] += got.short
        wrong = faults(cell, right, got)
        for kind in ("told", "silence", "gradient", "nan", "for"):
            count[f"wrong: {kind}"] += any(f"{kind} " in f"{fault} " for fault in wrong)
        if wrong:
            count["wrong"] += 1
            print("!", cell, got.method, "; ".join(wrong), flush=True)
    finite = max(count["finite"], 1)
    print(dict(count))
    print(f"told errors bound the real ones in {1 - count['wrong: told'] / finite:.3%}")
    return int(count["wrong"] + count["raised"] > 0)


if __name__ == "__main__":
    sys.exit(main())
