"""Our pairs against torch's own formulas, on the same objects, forward and backward.

One process, interleaved, process CPU time, medians; prints ratios (below 1: we are faster).

    python -m benchmarks.pairs_against_torch [--n 1000] [--repeats 21]
"""

import argparse
import math
import statistics
import time

import torch

import pyro_kl
from pyro_kl.registry import families, upstream_formula, upstream_owner


def members(family, n, dtype):
    """A batch of n members around the family's first example, with the leaves to differentiate."""
    leaves = {}
    for name, value in family.examples[0].items():
        value = torch.as_tensor(value, dtype=dtype)
        jitter = 1 + 0.1 * torch.rand((n,) + (1,) * value.dim(), dtype=dtype)
        leaves[name] = (value * jitter).clamp(max=0.95 if name == "probs" else math.inf)
        leaves[name].requires_grad_()
    return leaves


def once(formula, p_family, q_family, p_leaves, q_leaves):
    p = p_family.distribution(**p_leaves, validate_args=False)
    q = q_family.distribution(**q_leaves, validate_args=False)
    start = time.process_time_ns()
    value = formula(p, q).sum()
    leaves = [*p_leaves.values(), *q_leaves.values()]
    torch.autograd.grad(value, leaves, allow_unused=True)
    return time.process_time_ns() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=21)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    by_class = {family.distribution: family for family in families()}
    ratios = []
    for pair in pyro_kl.registered():
        if upstream_owner(pair.p, pair.q) is None or pair.method == "infinite":
            continue
        if pair.p not in by_class or pair.q not in by_class:
            continue
        p, q = by_class[pair.p], by_class[pair.q]
        for dtype in (torch.float32, torch.float64):
            p_leaves, q_leaves = members(p, arguments.n, dtype), members(q, arguments.n, dtype)
            theirs = upstream_formula(pair.p, pair.q)
            times = {"ours": [], "theirs": []}
            for _ in range(arguments.repeats):
                for who, formula in (("ours", pair.formula), ("theirs", theirs)):
                    times[who].append(once(formula, p, q, p_leaves, q_leaves))
            ours, torch_time = (statistics.median(times[who]) / 1e3 for who in times)
            ratios.append(ours / torch_time)
            print(
                f"{pair.name:<28} {str(dtype)[6:]:<8} n={arguments.n:<8} "
                f"ours {ours:9.0f} us  torch {torch_time:9.0f} us  ratio {ratios[-1]:5.2f}"
            )
    mean = math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))
    print(f"geometric mean of {len(ratios)} ratios: {mean:.2f}, worst {max(ratios):.2f}")


if __name__ == "__main__":
    main()
