"""An integral costs a few closed forms: forward and backward against torch's Normal || Normal.

    python -m benchmarks.integrals_cost_few_closed_forms

prints ratios of process CPU time, medians of interleaved runs, and the memory of a batch of 1e6.
"""

from __future__ import annotations

import resource
import sys
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

from .timing import medians, seconds

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


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch_normal = upstream_formula(Normal, Normal)
    for n, repeats in ((100, 41), (10_000, 7)):
        base = step(distributions(Normal, n), distributions(Normal, n), torch_normal)
        for p, q in PAIRS:
            run = step(distributions(p, n), distributions(q, n))
            found = medians({"ours": lambda run=run: run, "base": lambda base=base: base}, repeats)
            ratio = found["ours"] / found["base"]
            print(f"batch {n:6d}  {p.__name__} || {q.__name__}: {ratio:.1f} x")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    large = (distributions(cls, 1_000_000) for cls in (LogNormal, HalfCauchy))
    spent = seconds(step(*large))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"batch 1e6: {(after - before) / 1024:.0f} MiB more than before, {spent:.1f} s of CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
