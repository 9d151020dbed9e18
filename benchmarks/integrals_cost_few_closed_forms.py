"""What an integral costs: forward and backward against torch's Normal || Normal.

`python -m benchmarks.integrals_cost_few_closed_forms` prints ratios of process CPU time, medians of interleaved
runs in one process, and the memory that a batch of 1e6 takes.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
import warnings

import torch
from pyro.distributions import Logistic
from torch.distributions import (
    Beta,
    Cauchy,
    Distribution,
    Gamma,
    HalfCauchy,
    HalfNormal,
    Kumaraswamy,
    LogNormal,
    Normal,
    StudentT,
)

from pyro_kl.registry.register import upstream_formula

PAIRS = (
    (LogNormal, HalfCauchy),
    (HalfNormal, HalfCauchy),
    (Normal, StudentT),
    (Normal, Logistic),
    (Gamma, HalfCauchy),
    (Beta, Kumaraswamy),
    (Normal, Cauchy),
)


def distributions(
    cls: type[Distribution], n: int
) -> tuple[list[torch.Tensor], type[Distribution]]:
    names = [x for x in cls.arg_constraints if x not in ("probs", "logits")]
    real = {"loc"}
    given = [
        (torch.randn(n) * 0.5 if name in real else torch.rand(n) + 0.75).double()
        + (3.0 if name == "df" else 0.0)
        for name in names
    ]
    return [x.requires_grad_() for x in given], cls


def step(p, q, formula=torch.distributions.kl_divergence):
    def run():
        (a, make_p), (b, make_q) = p, q
        kl = formula(make_p(*a), make_q(*b)).sum()
        torch.autograd.grad(kl, [*a, *b], allow_unused=True)

    return run


def timed(run) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch_normal = upstream_formula(Normal, Normal)
    for n, repeats in ((100, 41), (10_000, 7)):
        base = step(distributions(Normal, n), distributions(Normal, n), torch_normal)
        for p, q in PAIRS:
            run = step(distributions(p, n), distributions(q, n))
            run(), base()
            times = [(timed(run), timed(base)) for _ in range(repeats)]
            ours, theirs = (statistics.median(x) for x in zip(*times, strict=True))
            print(f"batch {n:6d}  {p.__name__} || {q.__name__}: {ours / theirs:.1f} x")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    step(distributions(LogNormal, 1_000_000), distributions(HalfCauchy, 1_000_000))()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent = time.process_time() - start
    print(f"batch 1e6: {(after - before) / 1024:.0f} MiB more than before, {spent:.1f} s of CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
