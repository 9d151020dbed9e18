"""What holds for all divergences of any two distributions, at random members of families.

Renyi's divergence increases with its order, and Jensen and Shannon's is symmetric, below log 2 and
below a quarter of Jeffreys'; Hellinger's distance bounds it on both sides. Cells of the line have
masses that are no further apart than the distributions are (data processing), and a divergence
bounds their total variation (Pinsker).
"""

from __future__ import annotations

import math
import zlib

import pytest
import torch
from torch.distributions import Categorical

import pyro_kl

from ..conformance.cases import F64, FAMILIES, draw, make
from ..conformance.reference import divergence_values

pytestmark = [
    pytest.mark.usefixtures("nothing_warned", "double"),
    pytest.mark.filterwarnings("ignore:KL.*tolerance:UserWarning"),
]

LOG_2 = math.log(2)
ORDERS = (0.5, 0.8, 1.3)
MEMBERS = 3


def some_pairs():
    """One pair of families in 96 for `make test`, one in 16 for `make sweep`."""
    for p, q in divergence_values.pairs():
        key = zlib.crc32(f"{p.name}-{q.name}".encode())
        on_circle = "VonMises" in (p.name, q.name) and p is not q
        if key % 16 == 0 and not on_circle:
            marks = () if key % 96 == 0 else pytest.mark.sweep
            yield pytest.param(p.name, q.name, id=f"{p.name}-{q.name}", marks=marks)


def told(estimate):
    """What an estimate may be off: what is told of it, or 1e-9."""
    error = torch.zeros(()) if estimate.error is None else estimate.error
    return error + 1e-9 * estimate.value.abs().nan_to_num(posinf=0.0) + 1e-13


def at_most(low, high, factor=1.0):
    """Whether low <= factor * high, but for their errors."""
    return bool((low.value <= factor * high.value + told(low) + factor * told(high)).all())


@pytest.mark.parametrize(("p", "q"), [*some_pairs()])
def test_inequalities(p, q):
    p, q = (make(FAMILIES[name], draw(FAMILIES[name], MEMBERS, 0.7)) for name in (p, q))
    forward = pyro_kl.kl(p, q)
    half, most, above = (pyro_kl.renyi(p, q, order) for order in ORDERS)
    shannon, exchanged = pyro_kl.jensen_shannon(p, q), pyro_kl.jensen_shannon(q, p)
    for estimate in (half, most, above, shannon):
        assert estimate.value.shape == (MEMBERS,)
        assert estimate.value.dtype == F64
        assert (estimate.value >= -told(estimate)).all()

    assert at_most(half, most)
    assert at_most(most, forward)
    assert at_most(forward, above)

    swapped = pyro_kl.renyi(q, p, 0.5)
    assert at_most(half, swapped)
    assert at_most(swapped, half)
    assert at_most(shannon, exchanged)
    assert at_most(exchanged, shannon)

    assert (shannon.value <= LOG_2 + told(shannon)).all()
    assert at_most(shannon, pyro_kl.jeffreys(p, q), 0.25)
    hellinger = -torch.expm1(-half.value / 2)  # its square
    slack = told(shannon) + told(half)
    assert (hellinger / 2 <= shannon.value + slack).all()
    assert (shannon.value <= 2 * LOG_2 * hellinger + slack).all()

    masses = cells(p, q)
    coarse = [Categorical(probs=x) for x in masses]
    variation = 0.5 * (masses[0] - masses[1]).abs().sum(-1)
    lower_bounds = [
        (half, pyro_kl.renyi(*coarse, 0.5).value),
        (most, pyro_kl.renyi(*coarse, 0.8).value),
        (shannon, pyro_kl.jensen_shannon(*coarse).value),
        (half, variation**2),
        (most, 1.6 * variation**2),
        (shannon, variation**2 / 2),
    ]
    for estimate, bound in lower_bounds:
        # the midpoint rule has a per cent or so
        assert (0.98 * bound <= estimate.value + told(estimate) + 1e-3).all()


# --- cells of the line ---------------------------------------------------------------------------

CELLS, PLACES = 24, 400


def cells(p, q):
    """Masses of p and of q between quantiles of their samples and beyond: a row for each member.

    Those of counts are of the even atoms, the odd ones and the rest.
    """
    x = torch.cat([p.sample((400,)), q.sample((400,))]).sort(0).values
    if p.support.is_discrete:
        atoms = torch.arange(float(x.max()) + 1).unsqueeze(-1)
        masses = [density(d, atoms) for d in (p, q)]
        inside = [torch.stack([m[::2].sum(0), m[1::2].sum(0)], -1) for m in masses]
    else:
        ends = x[torch.linspace(4, 795, CELLS + 1).long()]
        part = ((torch.arange(PLACES) + 0.5) / PLACES).reshape(-1, 1, 1)
        places, widths = ends[:-1] + part * ends.diff(dim=0), ends.diff(dim=0) / PLACES
        inside = [(density(d, places) * widths).sum(0).mT for d in (p, q)]
    return [torch.cat([m, (1 - m.sum(-1, keepdim=True)).clamp(min=0.0)], -1) for m in inside]


def density(distribution, x):
    """Torch's own density or mass, 0 outside of the support."""
    inside = distribution.support.check(x)
    safe = torch.where(inside, x, distribution.sample())
    return torch.where(inside, distribution.log_prob(safe).exp(), 0.0).nan_to_num(0.0)
