"""Gradients where tails are long: shapes of .01 to .3, parameters over eight decades.

A node may lie where p has nothing left, or where x is beyond the floats: neither may make nan of
the gradient of a finite KL.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import constraints

from ..conformance.cases import (
    DUOS,
    F64,
    FAMILIES,
    INFINITE,
    accepted,
    constraints_of,
    counts_of,
    draw,
    kl_of,
    without_validation,
)
from ..conformance.reference.extended_precision.kl import knows
from ..conformance.reference.random_cells import Cell, faults, found

pytestmark = pytest.mark.filterwarnings("ignore:KL.*tolerance:UserWarning")

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
