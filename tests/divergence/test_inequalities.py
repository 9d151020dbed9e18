"""What holds for all divergences of any two distributions, at random members of every pair.

Renyi's divergence increases with its order, and Jensen and Shannon's is symmetric, below log 2 and
below a quarter of Jeffreys'. Cells of the line have masses that are no further apart than the
distributions are (data processing), and a divergence bounds their total variation (Pinsker).
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
ORDERS = (0.2, 0.5, 0.9, 1.0, 1.4)
MEMBERS = 4
PAIRS = [(p.name, q.name) for p, q in divergence_values.pairs()]


def some(pairs, one_in):
    """A part for `make test`, the others for `make sweep`."""
    return [
        pytest.param(
            *names,
            id="-".join(names),
            marks=() if zlib.crc32("-".join(names).encode()) % one_in == 0 else pytest.mark.sweep,
        )
        for names in pairs
    ]


def members(p, q):
    """Random members of both, whose scales are alike."""
    found = [FAMILIES[name] for name in (p, q)]
    return [make(family, draw(family, MEMBERS, 0.7)) for family in found]


def on_one_turn(p, q):
    return "VonMises" not in (p, q) or p == q


def told(estimate):
    """What an estimate may be off."""
    error = torch.zeros(()) if estimate.error is None else estimate.error
    return error + 1e-12 * (1 + estimate.value.abs().nan_to_num(posinf=0.0))


def at_most(low, high, factor=1.0):
    return (low.value <= factor * high.value + told(low) + factor * told(high)).all()


@pytest.mark.parametrize(("p", "q"), some([x for x in PAIRS if on_one_turn(*x)], 24))
def test_order_symmetry_and_bounds(p, q):
    p, q = members(p, q)
    by_order = [pyro_kl.renyi(p, q, order) for order in ORDERS]
    for low, high in zip(by_order, by_order[1:], strict=False):
        assert at_most(low, high), (p, q)
        assert (low.value >= -told(low)).all()
    half, swapped = by_order[1], pyro_kl.renyi(q, p, 0.5)
    assert at_most(half, swapped)
    assert at_most(swapped, half)
    shannon, exchanged = pyro_kl.jensen_shannon(p, q), pyro_kl.jensen_shannon(q, p)
    assert at_most(shannon, exchanged)
    assert at_most(exchanged, shannon)
    assert (shannon.value <= LOG_2 + told(shannon)).all()
    assert (shannon.value >= -told(shannon)).all()
    assert at_most(shannon, pyro_kl.jeffreys(p, q), 0.25)
    for estimate in (*by_order, shannon):
        assert estimate.value.shape == (MEMBERS,)
        assert estimate.value.dtype == F64


# --- cells ----------------------------------------------------------------------------------------

CELLS, INSIDE = 24, 400


def cells(p, q):
    """Masses of p and q in the cells between quantiles of both, normalised: one row a member."""
    x = torch.cat([p.sample((400,)), q.sample((400,))]).sort(0).values
    ends = x[torch.linspace(4, 795, CELLS + 1).long()]
    if p.support.is_discrete:
        atoms = torch.arange(float(ends.max()) + 1).unsqueeze(-1)
        masses = [_at(d, atoms).exp() for d in (p, q)]
        parity = torch.stack([torch.stack([m[::2].sum(0), m[1::2].sum(0)], -1) for m in masses])
        rest = (1 - parity.sum(-1, keepdim=True)).clamp(min=0.0)
        return torch.cat([parity, rest], -1)
    step = (torch.arange(INSIDE) + 0.5) / INSIDE
    low, width = ends[:-1].unsqueeze(0), ends.diff(dim=0).unsqueeze(0)
    places = low + step.reshape(-1, 1, 1) * width
    masses = [(_at(d, places).exp().nan_to_num(0.0) * width / INSIDE).sum(0).mT for d in (p, q)]
    rest = [(1 - m.sum(-1, keepdim=True)).clamp(min=0.0) for m in masses]
    return torch.stack([torch.cat(pair, -1) for pair in zip(masses, rest, strict=True)])


def _at(distribution, x):
    """Log density, -inf outside of the support."""
    inside = distribution.support.check(x)
    safe = torch.where(inside, x, distribution.sample())
    return torch.where(inside, distribution.log_prob(safe), -math.inf)


CELLED = [x for x in PAIRS if on_one_turn(*x)]


@pytest.mark.parametrize(("p", "q"), some(CELLED, 24))
def test_cells_are_no_further_apart(p, q):
    """Masses by the midpoint rule, from torch's own densities: a per cent is left to it."""
    p, q = members(p, q)
    masses = cells(p, q)
    coarse = [Categorical(probs=x) for x in masses]
    variation = 0.5 * (masses[0] - masses[1]).abs().sum(-1)
    slack = 1e-3
    for order in (0.3, 0.7):
        found = pyro_kl.renyi(p, q, order)
        image = pyro_kl.renyi(*coarse, order).value
        assert (0.98 * image <= found.value + told(found) + slack).all(), (p, q, order)
        assert (2 * order * variation**2 <= found.value + told(found) + slack).all()
    shannon = pyro_kl.jensen_shannon(p, q)
    image = pyro_kl.jensen_shannon(*coarse).value
    assert (0.98 * image <= shannon.value + told(shannon) + slack).all()
    assert (variation**2 / 2 <= shannon.value + told(shannon) + slack).all()
