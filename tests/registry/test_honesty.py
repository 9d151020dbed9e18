"""Integrals that are hard: a value is right to what was asked, or the result says that it is not.

Every registered quadrature pair with narrow q, narrow p and heavy tails, against the independent
extended-precision rule of `reference`. No pair is named.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch
from pyro.distributions import LogNormal, SkewLogistic

import pyro_kl
from pyro_kl import Family

from ..conformance.cases import QUADRATURE, accepted, make, over, tensors
from ..conformance.reference.extended_precision.kl import knows, truth
from ..conformance.reference.random_members import draw

pytestmark = [
    pytest.mark.accuracy,
    pytest.mark.filterwarnings("ignore:KL.*tolerance:UserWarning"),
]

#: How much narrower than drawn q or p is made.
RATIOS = ((1.0, 1.0), (1.0, 1e-1), (1.0, 1e-2), (1.0, 1e-3), (1.0, 1e-4), (1e-2, 1.0), (1e-4, 1.0))
#: What makes a distribution narrower: proportional to its width, or to 1 / width.
WIDTHS, PRECISIONS = {"scale", "temperature"}, {"rate"}
#: Shapes of distributions on an interval or the circle, of the order of 1 / width^2.
SHAPES = {"concentration", "concentration1", "concentration0", "alpha"}
#: Of each pair's cells, those that the reference must know.
FEWEST = 4
#: Nats: below it nothing is asked of a KL.
FLOOR = 1e-12


def narrowed(family: Family, distribution: Mapping[str, float], ratio: float) -> dict[str, float]:
    """The same distribution, about `ratio` times as wide; unchanged if it has no scale."""
    new = dict(distribution)
    for name, x in distribution.items():
        if name in WIDTHS:
            new[name] = x * ratio
        elif name in PRECISIONS:
            new[name] = x / ratio
        elif name == "high":
            new[name] = distribution["low"] + (x - distribution["low"]) * ratio
    if ratio < 1 and new == dict(distribution) and SHAPES >= set(distribution) - {"loc"}:
        new |= {name: max(x, 1.0) / ratio for name, x in distribution.items() if name in SHAPES}
    return new


def hard_laws(p: Family, q: Family, count: int) -> Iterator[tuple[dict, dict]]:
    """Random members of both, narrowed."""
    random = np.random.default_rng(zlib.crc32(f"{p.name} {q.name}".encode()))
    for _ in range(count):
        a, b = draw(p, random), draw(q, random)
        for mine, theirs in RATIOS:
            yield narrowed(p, a, mine), narrowed(q, b, theirs)


@over(duo for duo in QUADRATURE if knows(duo.p.name, duo.q.name))
def test_right_or_told(duo):
    checked = 0
    for a, b in hard_laws(duo.p, duo.q, 1):
        if not (accepted(duo.p, tensors(a)) and accepted(duo.q, tensors(b))):
            continue
        right = truth(duo.p.name, a, duo.q.name, b)
        if not right.error <= 1e-8 * abs(right.kl) + FLOOR:
            continue  # the reference itself is short
        checked += 1
        found = pyro_kl.kl(make(duo.p, a), make(duo.q, b))
        value, kl = found.value.item(), float(right.kl)
        if math.isinf(kl) or math.isinf(value):
            assert value == kl or kl > 1e200, (a, b, found, kl)
            continue
        off = abs(value - kl) - right.error
        assert off <= 1e-6 * abs(kl) + FLOOR or "tolerance" in found.reason, (a, b, found, kl)
        claimed = 0.0 if found.error is None else found.error.item()
        assert off <= claimed + 1e-12 * abs(kl) + FLOOR, (a, b, found, kl, off, claimed)
    assert checked >= FEWEST, "the reference is short nearly everywhere"


def test_told_error_has_no_bound_beyond_the_floats():
    """E x of a LogNormal is exp(s^2 / 2), the most of it from x around exp(s^2)."""
    q = SkewLogistic(*torch.tensor([0.5, 0.6, 31.0], dtype=torch.float64))
    scale = torch.tensor([10.0, 26.0, 97.0], dtype=torch.float64)
    found = pyro_kl.kl(LogNormal(torch.zeros_like(scale), scale), q)
    assert found.error.isinf().tolist() == [False, True, True]
    assert "tolerance" in found.reason
