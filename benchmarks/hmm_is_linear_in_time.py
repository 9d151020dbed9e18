"""The KL of two GaussianHMMs takes time in proportion to their length.

python -m benchmarks.hmm_is_linear_in_time
"""

from __future__ import annotations

from functools import partial

import pyro.distributions as dist
import torch
from torch.distributions import kl_divergence

import pyro_kl  # noqa: F401  it registers

from .timing import medians


def hmm(steps, matrix):
    noise = dist.Normal(torch.zeros(4), 0.5 * torch.ones(4)).to_event(1)
    start = dist.Normal(torch.zeros(4), torch.ones(4)).to_event(1)
    seen = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
    return dist.GaussianHMM(start, matrix, noise, torch.ones(4, 2), seen, duration=steps)


def main():
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    print("GaussianHMM || GaussianHMM, 4 hidden and 2 observed dims, CPU ms (median of 5)")
    first = None
    for steps in (100, 1000, 2500, 5000, 10_000):

        def make(steps=steps, backward=False):
            left, right = ((0.3 * torch.randn(4, 4)).requires_grad_() for _ in range(2))

            def forward():
                return kl_divergence(hmm(steps, left), hmm(steps, right))

            return forward().backward if backward else forward

        found = medians({"forward": make, "backward": partial(make, backward=True)}, 5, warm=0)
        total = sum(found.values())
        if steps == 1000:
            first = total
        ratio = f"{total / first:6.2f} times T = 1000" if first else ""
        print(
            f"T = {steps:6d}  forward {1e3 * found['forward']:8.1f}  "
            f"backward {1e3 * found['backward']:8.1f}  {ratio}"
        )


if __name__ == "__main__":
    main()
