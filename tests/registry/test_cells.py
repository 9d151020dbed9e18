"""Random cells against an independent truth: a small part of `benchmarks.random_cells`.

No pair is named: the cells are drawn from all that are registered and in the book.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import TransformedDistribution

import pyro_kl

from ..conformance.cases import DUOS, QUADRATURE, make
from ..conformance.reference.extended_precision.functions import LD
from ..conformance.reference.random_cells import (
    cells,
    faults,
    found,
    maps_of,
    random_pairs_of,
    transforms_of,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:KL.*tolerance:UserWarning"),
    pytest.mark.skipif(np.finfo(LD).eps > 1e-18, reason="no extended precision here"),
]

SEED = 7


@pytest.mark.parametrize(("mapped", "count"), [(False, 60), (True, 30)], ids=["plain", "mapped"])
def test_nothing_is_wrong_in_silence(mapped, count):
    """Values, gradients and told errors, parameters over eight decades, in both dtypes."""
    wrong, seen = [], 0
    for cell in cells(random_pairs_of(DUOS, mapped=mapped), count, seed=SEED, mapped=mapped):
        right = cell.truth()
        if not right.good:
            continue
        got = found(cell)
        seen += 1
        if isinstance(got, str):
            assert got.startswith("declined"), (str(cell), got)
        elif faults(cell, right, got):
            wrong.append((str(cell), faults(cell, right, got)))
    assert not wrong
    assert seen > count / 2


def test_told_error_holds_under_one_map_on_both_sides():
    """Every integral's first finite row: the KL is what it is without the map."""
    random = np.random.default_rng(0)
    for duo in QUADRATURE:
        row = duo.finite_rows()[0]
        maps = transforms_of(maps_of(duo.p, duo.q, random))
        p, q = make(duo.p, row.p), make(duo.q, row.q)
        if maps:
            p, q = TransformedDistribution(p, maps), TransformedDistribution(q, maps)
        got = pyro_kl.kl(p, q)
        told = 0.0 if got.error is None else got.error.item()
        off = abs(got.value.item() - row.kl)
        assert off <= told + 1e-15 * abs(row.kl) + row.error + 1e-20, (duo.id, maps, got, row)
        assert off <= 1e-6 * abs(row.kl) + 1e-13 or "tolerance" in got.reason, (duo.id, maps)
        assert torch.isfinite(got.value)
