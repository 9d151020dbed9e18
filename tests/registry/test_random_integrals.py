"""Integrals of random distributions against an independent truth. No pair is named.

Cells are drawn from all pairs that are registered and that `reference.extended_precision` has, as
`tools.random_cells` does with more of them.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch
from torch.distributions import TransformedDistribution, constraints

import pyro_kl
from pyro_kl import Family

from ..conformance.cases import (
    DUOS,
    F64,
    FAMILIES,
    INFINITE,
    QUADRATURE,
    accepted,
    constraints_of,
    counts_of,
    draw,
    kl_of,
    make,
    over,
    tensors,
    without_validation,
)
from ..conformance.reference.extended_precision.functions import LD
from ..conformance.reference.extended_precision.kl import knows, truth
from ..conformance.reference.random_cells import (
    Cell,
    cells,
    faults,
    found,
    maps_of,
    random_pairs_of,
    transforms_of,
)
from ..conformance.reference.random_members import draw as draw_member

pytestmark = pytest.mark.filterwarnings("ignore:KL.*tolerance:UserWarning")
in_extended_precision = pytest.mark.skipif(
    np.finfo(LD).eps > 1e-18, reason="no extended precision here"
)

SEED = 7


@in_extended_precision
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


@in_extended_precision
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


# --- narrow p and narrow q ----------------------------------------------------------------------

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


def narrowed_pairs(p: Family, q: Family, count: int) -> Iterator[tuple[dict, dict]]:
    """Random members of both, narrowed."""
    random = np.random.default_rng(zlib.crc32(f"{p.name} {q.name}".encode()))
    for _ in range(count):
        a, b = draw_member(p, random), draw_member(q, random)
        for mine, theirs in RATIOS:
            yield narrowed(p, a, mine), narrowed(q, b, theirs)


@pytest.mark.accuracy
@over(duo for duo in QUADRATURE if knows(duo.p.name, duo.q.name))
def test_right_or_told(duo):
    checked = 0
    for a, b in narrowed_pairs(duo.p, duo.q, 1):
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


# --- long tails: shapes of .01 to .3, parameters over eight decades -----------------------------

# A node may lie where p has nothing left, or where x is beyond the floats: neither may make nan of
# the gradient of a finite KL.

#: Rows with parameters over eight decades, and rows with small shapes.
WIDE, HEAVY = 3, 5
#: Nats.
LARGE = 1e150
#: p || q of long tails: every how many-th is compared with a truth of its own.
EVERY = 12


def with_long_tails(family, random):
    """Members whose positive parameters are .01 to .3 as often as not."""
    drawn = draw(family, HEAVY, 1.0)
    for name, x in drawn.items():
        constraint = constraints_of(family)[name]
        if constraint is constraints.positive and x.dim() == 1:
            small = torch.tensor(10 ** random.uniform(-2, -0.5, HEAVY), dtype=F64)
            moved = torch.where(torch.tensor(random.random(HEAVY) < 0.6), small, x)
            if accepted(family, {**drawn, name: moved}):
                drawn[name] = moved
    return drawn


def members(name):
    """Wide and heavy ones, which ask for gradients."""
    family = FAMILIES[name]
    both = (draw(family, WIDE, 4.0), with_long_tails(family, np.random.default_rng(0)))
    return {
        key: torch.cat([x, both[1][key]]).requires_grad_(key not in counts_of(family))
        for key, x in both[0].items()
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_of_finite_kls_are_finite(name):
    p = members(name)
    broken = []
    with without_validation():
        for duo in (duo for duo in DUOS if duo.p.name == name and duo not in INFINITE):
            q = members(duo.q.name)
            kl = kl_of(duo, p, q)
            assert not kl.isnan().any(), duo.id
            # next to the largest float64 a derivative is larger than it
            sides = [{key: x[kl < LARGE] for key, x in side.items()} for side in (p, q)]
            kl, inputs = kl_of(duo, *sides), [x for side in sides for x in side.values()]
            if kl.requires_grad:
                asked = [x for x in inputs if x.requires_grad]
                slopes = torch.autograd.grad(kl.sum(), asked, allow_unused=True)
                if not all(d is None or d.isfinite().all() for d in slopes):
                    broken.append(duo.id)
    assert not broken


LONG = [
    duo
    for duo in DUOS
    if duo.pair.method == "quadrature"
    and knows(duo.p.name, duo.q.name)
    and duo.p.line is not None
    and any(index != float("inf") for index in duo.p.line.index)
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_gradients_are_those_of_another_integral(dtype):
    """By central differences of an integral in extended precision, from the book's densities."""
    wrong, compared = [], 0
    for i, duo in enumerate(LONG[::EVERY]):
        random = np.random.default_rng(i)
        a, b = (
            {key: x[0].to(dtype).item() for key, x in with_long_tails(family, random).items()}
            for family in (duo.p, duo.q)
        )
        cell = Cell(duo.p, duo.q, a, b, dtype)
        got, right = found(cell), cell.truth()
        if np.isfinite(right.kl):
            compared += 1
            wrong += [f"{cell}: {fault}" for fault in faults(cell, right, got)]
    assert compared > 5
    assert not wrong


def test_second_derivatives_are_finite():
    """A kink of q's apart, whose place in p's scale may be beyond the floats."""
    broken = []
    with without_validation():
        for duo in (duo for duo in LONG[::6] if not duo.q.kinks):
            sides = [members(duo.p.name), members(duo.q.name)]
            few = kl_of(duo, *sides) < LARGE
            sides = [{key: x[few] for key, x in side.items()} for side in sides]
            asked = [x for side in sides for x in side.values() if x.requires_grad]
            slopes = torch.autograd.grad(kl_of(duo, *sides).sum(), asked, create_graph=True)
            total = sum((k + 1) * slope.sum() for k, slope in enumerate(slopes))
            twice = torch.autograd.grad(total, asked, allow_unused=True)
            if not all(d is None or d.isfinite().all() for d in twice):
                broken.append(duo.id)
    assert not broken
