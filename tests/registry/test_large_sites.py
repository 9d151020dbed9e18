"""What an integral of many rows keeps for the backward pass: its parameters, and one block."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, TransformedDistribution, biject_to, kl_divergence

from ..conformance.cases import F64, FAMILIES, tensors

ROWS = 5000
#: Tensors of a block that autograd works on where an integrand is not recorded; MiB.
A_BLOCK = 32
#: Where it is, nothing but tensors of rows.
OF_ROWS = 20 * ROWS * 8 / 2**20


def kept_by(family) -> float | None:
    """MiB that are saved for KL(T(Normal) || a member), T being the map to its support."""
    one = tensors(family.examples[0])
    prior = family.distribution(**{name: x.expand(ROWS) for name, x in one.items()})
    loc, scale = (torch.full((ROWS,), x, dtype=F64, requires_grad=True) for x in (0.1, 0.2))
    guide = TransformedDistribution(Normal(loc, scale), [biject_to(prior.support)])
    kept: dict[int, int] = {}

    def keep(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        kl = kl_divergence(guide, prior)
    return sum(kept.values()) / 2**20 if kl.isfinite().all() else None


@pytest.mark.filterwarnings("ignore:KL.*tolerance:UserWarning")
def test_memory_of_a_large_site():
    """Before, all nodes of all rows: 600 numbers for each parameter."""
    continuous = [x for x in FAMILIES.values() if x.line and x.support.period is None]
    found = {family.name: kept_by(family) for family in continuous}
    finite = {name: size for name, size in found.items() if size is not None}
    assert max(finite.values()) < A_BLOCK, finite
    assert sum(size < OF_ROWS for size in finite.values()) > 0.85 * len(finite), finite
