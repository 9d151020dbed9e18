"""Exact KL over a vocabulary against two log_softmax passes with backward: time and memory.

One process, interleaved, process CPU time, medians; prints the ratio of times (limit 1.3) and the
memory beyond the two inputs and the gradient, in units of one logits tensor (limit 0.1).

    python -m benchmarks.policy_kl_costs_two_softmaxes [--tokens 1024] [--vocabulary 128000] [--repeats 3]
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from pyro_kl.policy import exact_kl


def two_log_softmax(policy, reference, upstream):
    for logits in (policy, reference):
        logits.grad = None
        torch.log_softmax(logits, -1).backward(upstream)
        logits.grad = None


def ours(policy, reference, weight):
    policy.grad = None
    exact_kl(policy, reference.detach()).backward(weight)
    policy.grad = None


def once(run, *arguments):
    start = time.process_time_ns()
    run(*arguments)
    return (time.process_time_ns() - start) / 1e9


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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=128_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = (arguments.tokens, arguments.vocabulary)
    for dtype in (torch.float32, torch.bfloat16):
        policy = torch.randn(shape, dtype=dtype).mul_(3)
        reference = (policy + 0.3 * torch.randn(shape, dtype=dtype)).requires_grad_()
        policy.requires_grad_()
        weight = torch.full((arguments.tokens,), 1 / arguments.tokens)
        exact_kl(policy[:8], reference[:8].detach())  # what is loaded on first use
        extra = peak_beyond(policy, reference, weight)
        policy.grad = None
        size = policy.numel() * policy.element_size()
        upstream = torch.ones_like(policy)
        times = {"theirs": [], "ours": []}
        for _ in range(arguments.repeats):
            times["theirs"].append(once(two_log_softmax, policy, reference, upstream))
            times["ours"].append(once(ours, policy, reference, weight))
        theirs, mine = (statistics.median(times[who]) for who in ("theirs", "ours"))
        print(
            f"{str(dtype)[6:]:<9} {shape[0]} x {shape[1]}  two log_softmax {theirs:.2f} s  "
            f"exact KL {mine:.2f} s  ratio {mine / theirs:.2f} (limit 1.3)  "
            f"memory beyond inputs and gradient {(extra - size) / size:+.3f} of one logits tensor "
            "(limit 0.1)",
            flush=True,
        )
        del policy, reference, upstream


if __name__ == "__main__":
    main()
