"""Random cells of every deterministic pair against an independent truth: is anything wrong?

`python -m benchmarks.random_cells [--cells 3000] [--seed 0] [--only NAME]`
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

import numpy as np

from tests.laws import DUOS
from tests.reference.cells import cells, faults, found
from tests.reference.peer import knows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--mapped", action="store_true")
    options = parser.parse_args()
    pairs = [
        (duo.p, duo.q)
        for duo in DUOS
        if knows(duo.p.name, duo.q.name)
        and options.only in duo.id
        and (duo.pair.method != "infinite" or options.mapped)
        and (duo.p.line is not None or not options.mapped)
    ]
    count = Counter()
    spent = Counter()
    for cell in cells(pairs, options.cells, options.seed, mapped=options.mapped):
        start = time.perf_counter()
        right = cell.truth()
        spent["truth"] += time.perf_counter() - start
        if np.isnan(right.kl) or not right.error <= 1e-8 * max(abs(right.kl), 1e-3):
            count["without a reference"] += 1
            print("?", cell, right.kl, right.error)
            continue
        start = time.perf_counter()
        got = found(cell)
        spent["found"] += time.perf_counter() - start
        if isinstance(got, str):
            declined = got.startswith("declined")
            count["declined" if declined else "wrong"] += 1
            print("-" if declined else "!", cell, got)
            continue
        count["infinite" if np.isinf(right.kl) else "finite"] += 1
        count["short"] += got.short
        wrong = faults(cell, right, got)
        if wrong:
            count["wrong"] += 1
            print("!", cell, got.method, "; ".join(wrong), flush=True)
    print(dict(count), dict(spent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
