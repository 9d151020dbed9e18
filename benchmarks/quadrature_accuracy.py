"""Quadrature pairs at random parameters against the definition at 20 digits.

`python -m benchmarks.quadrature_accuracy [--sets 12] [--every 1] [--seed 0]` prints the pairs by
method, the worst relative errors at the default tolerance and at 1e-10, those of the gradient
(against central differences of the value at 1e-12), and how often the reported error bounds the
real one. A reference that mpmath does not finish in time is left out, and counted.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import warnings
from collections import Counter

import torch
from torch.distributions import kl_divergence

import pyro_kl
from pyro_kl.quadrature import tolerance
from tests.laws import QUADRATURE, draw, make, row_of
from tests.reference import quadrature as reference

FLOOR = 1e-14  # nats: below it a relative error is one of rounding


def truth(duo, a, b):
    signal.alarm(reference.PATIENCE)
    try:
        a, b = ({name: x.item() for name, x in law.items()} for law in (a, b))
        return float(reference.value(duo.p, a, duo.q, b))
    except (TimeoutError, ArithmeticError, ValueError):
        return math.nan
    finally:
        signal.alarm(0)


def gradient_error(duo, a, b):
    """The worst difference from central differences, relative to the largest derivative."""
    names = [("p", n) for n in a] + [("q", n) for n in b]
    inputs = [x.clone().requires_grad_() for x in (*a.values(), *b.values())]

    def value(*xs):
        laws = {"p": {}, "q": {}}
        for (side, name), x in zip(names, xs, strict=True):
            laws[side][name] = x
        return kl_divergence(make(duo.p, laws["p"]), make(duo.q, laws["q"]))

    kl = value(*inputs)
    if not kl.requires_grad:
        return 0.0
    slopes = torch.autograd.grad(kl, inputs, allow_unused=True, materialize_grads=True)
    worst, largest = 0.0, max(abs(s.item()) for s in slopes)
    with torch.no_grad(), tolerance(1e-12):
        for i, x in enumerate(inputs):
            step = 1e-5 * max(abs(x.item()), 1e-3)
            moved = [[y + s * step * (j == i) for j, y in enumerate(inputs)] for s in (-1, 1)]
            try:
                low, high = (value(*xs).item() for xs in moved)
            except ValueError:  # a parameter next to the end of its range
                continue
            difference = (high - low) / (2 * step)
            noise = 1e-13 * (1 + abs(high)) / step
            if math.isfinite(difference):
                worst = max(worst, abs(difference - slopes[i].item()) - noise)
    return worst / (largest + 1e-8)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=12)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")

    def too_late(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, too_late)
    reference.coarser()
    torch.manual_seed(options.seed)
    methods = Counter(pair.method for pair in pyro_kl.registered())
    print("pairs by method:", dict(methods), "in all", sum(methods.values()))
    rows = {1e-6: [], 1e-10: []}
    count = Counter()
    gradients = []
    for duo in QUADRATURE[:: options.every]:
        p, q = draw(duo.p, options.sets, 0.5), draw(duo.q, options.sets, 0.5)
        for i in range(options.sets):
            a, b = row_of(p, i), row_of(q, i)
            right = truth(duo, a, b)
            if math.isnan(right):
                count["no reference"] += 1
                continue
            for asked, found in rows.items():
                kl = pyro_kl.kl(make(duo.p, a), make(duo.q, b), tolerance=asked)
                value = kl.value.item()
                if math.isinf(right) or math.isinf(value):
                    count["infinite, right" if value == right else "infinite, WRONG"] += 1
                    if value != right:
                        print("infinite?", duo.id, a, b, value, right)
                    continue
                error = 0.0 if kl.error is None else kl.error.item()
                short = "tolerance" in kl.reason
                found.append((abs(value - right), right, error, short, duo.id))
            if math.isfinite(right):
                gradients.append((gradient_error(duo, a, b), duo.id))
    print(dict(count))
    for asked, found in rows.items():
        told = [row for row in found if row[3]]
        kept = [row for row in found if not row[3]]
        worst = max(((max(e - FLOOR, 0) / kl, name) for e, kl, _, _, name in kept if kl > 0))
        bounded = sum(e <= error + 2e-15 * abs(kl) + 1e-17 for e, kl, error, _, _ in found)
        print(
            f"asked {asked:g}: {len(found)} finite, worst relative error {worst[0]:.2g} "
            f"({worst[1]}), said to be short {len(told)}, error bounds the real one in "
            f"{bounded / len(found):.2%}"
        )
    gradients.sort(reverse=True)
    bad = sum(g > 1e-5 for g, _ in gradients)
    print(f"gradients: {bad} of {len(gradients)} above 1e-5; worst {gradients[:5]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
