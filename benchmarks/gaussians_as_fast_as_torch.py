"""Multivariate normals take what torch's formula takes on the same objects, or less.

Forward and backward, interleaved, medians of process CPU time; below 1 we are faster. Every row is
compared with torch's MVN || MVN of that size: `dense` is ours, `product` is ours against a product
prior, and `node` is what any of them takes at least: autograd's way through a node that does
nothing.

    python -m benchmarks.gaussians_as_fast_as_torch [--repeats 15] [--dtype float64]
"""

import argparse

import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

import pyro_kl  # noqa: F401  it registers
from pyro_kl.registry.register import upstream_formula

from .timing import medians

SIZES = [(10, ()), (100, ()), (500, ()), (10, (100,)), (100, (100,)), (500, (20,))]


def leaves(d, batch, dtype):
    below = 0.3 * torch.randn(*batch, d, d, dtype=dtype).tril(-1) / d**0.5
    scale_tril = below + torch.diag_embed(torch.rand(*batch, d, dtype=dtype) + 0.5)
    return [torch.randn(*batch, d, dtype=dtype).requires_grad_(), scale_tril.requires_grad_()]


class Nothing(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs):
        ctx.save_for_backward(*inputs)
        return inputs[0].new_zeros(())

    @staticmethod
    def backward(ctx, grad):
        return ctx.saved_tensors


def nothing(p, q):
    return Nothing.apply(p.loc, p._unbroadcasted_scale_tril, q.loc, q._unbroadcasted_scale_tril)


def row(d, batch, dtype, learns_q, repeats):
    torch.manual_seed(0)
    own, prior = leaves(d, batch, dtype), leaves(d, (), dtype)
    if not learns_q:
        prior = [x.detach() for x in prior]
    p = MultivariateNormal(own[0], scale_tril=own[1], validate_args=False)
    q = MultivariateNormal(prior[0], scale_tril=prior[1], validate_args=False)
    scale = torch.ones(d, dtype=dtype)
    product = Independent(Normal(prior[0], scale, validate_args=False), 1)
    theirs = upstream_formula(MultivariateNormal, MultivariateNormal)
    inputs = own + prior if learns_q else own
    without_matrix = own + prior[:1] if learns_q else own
    runs = {
        "torch": (theirs, q, inputs),
        "dense": (kl_divergence, q, inputs),
        "product": (kl_divergence, product, without_matrix),
        "node": (nothing, q, inputs),
    }

    def maker(formula, other, wanted):
        return lambda: lambda: torch.autograd.grad(formula(p, other).sum(), wanted)

    return medians({name: maker(*run) for name, run in runs.items()}, repeats)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--dtype", default="float64")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for d, batch in SIZES:
        for learns_q in (False, True):
            found = row(d, batch, getattr(torch, arguments.dtype), learns_q, arguments.repeats)
            dense, product, node = (
                found[x] / found["torch"] for x in ("dense", "product", "node")
            )
            print(
                f"d={d:<4} batch={list(batch)!s:<6} gradients to {'p, q' if learns_q else 'p':<5} "
                f"torch {1e6 * found['torch']:9.0f} us   dense {dense:5.2f}   "
                f"product {product:6.3f}   node {node:6.3f}"
            )


if __name__ == "__main__":
    main()
