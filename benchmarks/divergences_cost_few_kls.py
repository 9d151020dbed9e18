"""A Renyi or a Jensen-Shannon divergence of a batch costs a few integrals of the KL.

    python -m benchmarks.divergences_cost_few_kls

prints ratios of process CPU time to the KL's integral of the same rows, medians of interleaved
runs. Of a pair whose KL has a closed form it is the integral that it would otherwise be.
"""

from __future__ import annotations

import sys
import warnings

import torch
from torch.distributions import Beta, Gamma, Kumaraswamy, Laplace, LogNormal, Normal, StudentT

import pyro_kl
from pyro_kl.registry.integrate import integral
from pyro_kl.registry.register import family_of

from .timing import Run, medians

PAIRS = (
    (Normal, Laplace),
    (Gamma, LogNormal),
    (Beta, Kumaraswamy),
    (StudentT, Normal),
    (Normal, StudentT),
)


def made(cls: type, rows: int) -> torch.distributions.Distribution:
    """Rows of a class, with parameters of the order of 1."""
    real = {"loc": lambda: torch.randn(rows) * 0.5, "df": lambda: torch.rand(rows) + 4.0}
    names = [x for x in cls.arg_constraints if x not in ("probs", "logits")]
    values = [real[name]() if name in real else torch.rand(rows) + 0.75 for name in names]
    return cls(*(x.double() for x in values), validate_args=False)


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("times the KL's integral:")
    for rows, repeats in ((1, 31), (100, 21), (1000, 11)):
        for pair in PAIRS:
            p, q = (made(cls, rows) for cls in pair)
            formula = integral(*(family_of(cls) for cls in pair)).formula
            runs: dict[str, Run] = {
                "kl": lambda p=p, q=q, formula=formula: formula(p, q),
                "renyi(0.5)": lambda p=p, q=q: pyro_kl.renyi(p, q, 0.5),
                "renyi(0.9)": lambda p=p, q=q: pyro_kl.renyi(p, q, 0.9),
                "jensen_shannon": lambda p=p, q=q: pyro_kl.jensen_shannon(p, q),
            }
            found = medians({name: lambda run=run: run for name, run in runs.items()}, repeats)
            kl = found.pop("kl")
            ratios = "  ".join(f"{name} {spent / kl:5.1f}" for name, spent in found.items())
            names = " || ".join(cls.__name__ for cls in pair)
            print(f"{rows:5d} rows  {names:19}  {ratios}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
