"""Closed forms take what torch's own formulas take, forward and backward, or less.

    python -m benchmarks.closed_forms_as_fast_as_torch [--n 1 1000 1000000] [--only Gamma]

One process and one thread. Every pair for which torch has a formula of its own that is finite for
the parameters below, on equal distributions, which are made anew before the clock starts: what a
class computes once and keeps is computed by both. All parameters ask for a gradient. The two
sides take turns, and so does who goes first; a number is the median of the process CPU time. A
ratio below 1 says that we are faster.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

import pyro_kl
from pyro_kl.registry.register import families, upstream_formula, upstream_owner

from .timing import Run, medians

JITTER = 0.1
DTYPES = (torch.float32, torch.float64)


class Contest(NamedTuple):
    """A pair that both sides have, and parameters for which torch's value is finite."""

    pair: pyro_kl.Pair
    p: dict[str, Any]
    q: dict[str, Any]

    def distributions(
        self, n: int, dtype: torch.dtype, seed: int = 0
    ) -> tuple[Any, Any, list[Tensor]]:
        """Batches of n members around the parameters, and the leaves to differentiate by."""
        torch.manual_seed(seed)
        p, q = members(self.p, n, dtype), members(self.q, n, dtype)
        leaves = [x for x in (*p.values(), *q.values()) if x.requires_grad]
        return (
            self.pair.p(**p, validate_args=False),
            self.pair.q(**q, validate_args=False),
            leaves,
        )


def members(example: dict[str, Any], n: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Parameters up to 10 % above the example's; counts as they are."""
    found = {}
    for name, given in example.items():
        value = torch.as_tensor(given, dtype=dtype)
        if name == "total_count":
            found[name] = value
            continue
        factor = 1 + JITTER * torch.rand((n,) + (1,) * value.dim(), dtype=dtype)
        found[name] = value * factor
        if name == "probs" and not value.dim():
            found[name].clamp_(max=0.95)
        found[name].requires_grad_()
    return found


def contests(only: str = "", *, structured: bool = False) -> Iterator[Contest]:
    """Every pair with a formula of torch's that is finite for some parameters."""
    by_class = {family.distribution: family for family in families()}
    for pair in pyro_kl.registered():
        owner = upstream_owner(pair.p, pair.q)
        if owner is None or pair.method in ("infinite", "rule", "point density"):
            continue
        if only not in pair.name or not owner.startswith("torch."):
            continue
        if pair.p in by_class and pair.q in by_class:
            cells = product(by_class[pair.p].examples, by_class[pair.q].examples)
        elif not structured:
            continue
        else:
            cells = ((case.p, case.q) for case in pair.cases)
        for p, q in cells:
            contest = Contest(pair, dict(p), dict(q))
            if is_finite(contest):
                yield contest
                break
        else:
            print(f"{pair.name:<30} torch has no finite value for any of our examples")


def is_finite(contest: Contest) -> bool:
    p, q, _ = contest.distributions(100, torch.float64)
    try:
        theirs = upstream_formula(contest.pair.p, contest.pair.q)(p, q)
    except NotImplementedError:  # torch's Binomial || Binomial of a larger count
        return False
    return bool(theirs.isfinite().all() and contest.pair.formula(p, q).isfinite().all())


def race(contest: Contest, n: int, dtype: torch.dtype, repeats: int) -> tuple[float, float]:
    """Our seconds and torch's, of one KL and its gradient: the mean over some calls."""
    calls = 10 if n <= 10_000 else 1

    def maker(formula: Callable[..., Tensor]) -> Callable[[], Run]:
        def make() -> Run:
            distributions = [contest.distributions(n, dtype) for _ in range(calls)]

            def run() -> None:
                for p, q, leaves in distributions:
                    torch.autograd.grad(formula(p, q).sum(), leaves, allow_unused=True)

            return run

        return make

    ours, theirs = contest.pair.formula, upstream_formula(contest.pair.p, contest.pair.q)
    found = medians({"ours": maker(ours), "torch": maker(theirs)}, repeats)
    return found["ours"] / calls, found["torch"] / calls


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, nargs="+", default=[1, 1000, 1_000_000])
    parser.add_argument("--only", default="", help="pairs whose name contains this")
    parser.add_argument(
        "--structured", action="store_true", help="distributions on vectors too; slow for large n"
    )
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = list(contests(arguments.only, structured=arguments.structured))
    ratios: dict[tuple[int, torch.dtype], dict[str, float]] = {}
    print(f"{'pair':<30} {'dtype':<8} {'n':>8} {'ours, us':>10} {'torch, us':>10} {'ratio':>6}")
    for n, contest, dtype in product(arguments.n, chosen, DTYPES):
        repeats = arguments.repeats if n <= 10_000 else max(3, arguments.repeats // 3)
        ours, theirs = race(contest, n, dtype, repeats)
        name = contest.pair.name
        ratios.setdefault((n, dtype), {})[name] = ours / theirs
        print(
            f"{name:<30} {str(dtype)[6:]:<8} {n:>8} {1e6 * ours:>10.0f} {1e6 * theirs:>10.0f} "
            f"{ours / theirs:>6.2f}",
            flush=True,
        )
    print("\ngeometric mean and worst ratio:")
    for (n, dtype), found in ratios.items():
        mean = math.exp(statistics.fmean(map(math.log, found.values())))
        worst = max(found, key=found.__getitem__)
        print(
            f"n = {n:>8}  {str(dtype)[6:]}  {len(found)} pairs  mean {mean:.2f}  "
            f"worst {found[worst]:.2f} ({worst}), above 1.5: "
            f"{sum(ratio > 1.5 for ratio in found.values())}"
        )


if __name__ == "__main__":
    main()
