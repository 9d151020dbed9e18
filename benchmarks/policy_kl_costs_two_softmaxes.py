"""An exact KL over a vocabulary costs two log_softmax passes with backward, and no memory.

One process, interleaved, process CPU time, medians; prints the ratio of times (limit 1.3) and the
memory beyond the two inputs and the gradient, in units of one logits tensor (limit 0.1).

    python -m benchmarks.policy_kl_costs_two_softmaxes [--tokens 1024] [--vocabulary 128000]
"""

import argparse
from functools import partial
from pathlib import Path

import torch

from pyro_kl.policy import exact_kl

from .timing import medians


def two_log_softmax(policy, reference, upstream):
    for logits in (policy, reference):
        logits.grad = None
        torch.log_softmax(logits, -1).backward(upstream)
        logits.grad = None


def ours(policy, reference, weight):
    policy.grad = None
    exact_kl(policy, reference.detach()).backward(weight)
    policy.grad = None


def peak_beyond(policy, reference, weight):
    """Bytes at the peak of one pass beyond what stands before it (Linux: the mark is reset)."""
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    exact_kl(policy, reference.detach()).backward(weight)
    return resident("VmHWM") - before


def resident(name):
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def row(shape, dtype, repeats):
    policy = torch.randn(shape, dtype=dtype).mul_(3)
    reference = (policy + 0.3 * torch.randn(shape, dtype=dtype)).requires_grad_()
    policy.requires_grad_()
    weight = torch.full((shape[0],), 1 / shape[0])
    exact_kl(policy[:8], reference[:8].detach())  # what is loaded on first use
    extra = peak_beyond(policy, reference, weight)
    policy.grad = None
    size = policy.numel() * policy.element_size()
    upstream = torch.ones_like(policy)
    makers = {
        "theirs": lambda: partial(two_log_softmax, policy, reference, upstream),
        "ours": lambda: partial(ours, policy, reference, weight),
    }
    found = medians(makers, repeats, warm=0)
    print(
        f"{str(dtype)[6:]:<9} {shape[0]} x {shape[1]}  two log_softmax {found['theirs']:.2f} s  "
        f"exact KL {found['ours']:.2f} s  ratio {found['ours'] / found['theirs']:.2f} "
        "(limit 1.3)  "
        f"memory beyond inputs and gradient {(extra - size) / size:+.3f} of one logits tensor "
        "(limit 0.1)",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=128_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        row((arguments.tokens, arguments.vocabulary), dtype, arguments.repeats)


if __name__ == "__main__":
    main()
