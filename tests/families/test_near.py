"""Two members of one family, close to each other or both extreme: where formulas lose digits.

Variational inference ends there. The textbook's formula, in mpmath at 60 digits, is the truth.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch.distributions import constraints, kl_divergence

from ..conformance.cases import SAME, constraints_of, counts_of, make, over
from ..conformance.reference.multiprecision import closed_forms, integrate

pytestmark = pytest.mark.accuracy

STEPS = (0.3, 1e-2, 1e-4, 1e-6)
#: Beta || Beta is a difference of terms of second order: a KL of 1e-15 keeps 7 digits there.
FLOOR = 1e-21
SIZES = (1e-3, 0.3, 1.0, 11.9, 60.0, 1e3, 1e6)


#: Integrals are slow: where the book has no formula, a few members and fewer digits.
MEMBERS, DIGITS, WORKING_DIGITS = 4, 30, 50


def by_the_book(family):
    return family.name in closed_forms.FORMULAS


def sizes(parameters):
    return {name: np.shape(x) for name, x in parameters.items()}


def grids(family, sizes_of_positive=SIZES):
    """Members over decades: every parameter takes every size its constraint allows."""
    example, given, wide = family.examples[0], constraints_of(family), by_the_book(family)
    if not wide:
        return [dict(x) for x in family.examples if sizes(x) == sizes(example)][:MEMBERS]
    ranges = []
    for name in example:
        constraint = given[name]
        if name in counts_of(family):
            ranges.append([1.0, 5.0, 1000.0])
        elif constraint is constraints.simplex:
            ranges.append([[0.2, 0.3, 0.5], [1e-6, 0.5, 0.499999], [0.9, 1e-3, 0.099]])
        elif constraint is constraints.unit_interval:
            ranges.append([1e-6, 0.01, 0.3, 0.5, 0.9, 0.999])
        elif constraint is constraints.real:
            ranges.append([-1e3, -0.7, 0.0, 2.0, 1e6])
        else:
            ranges.append(sizes_of_positive)
    return [dict(zip(example, values, strict=True)) for values in product(*ranges)]


def moved(parameters, name, step):
    """One parameter, or one element of it, changed by a relative step; by `step` itself at 0."""
    value = parameters[name]
    if isinstance(value, list):
        weights = [value[0] * (1 + step), *value[1:]]
        return {**parameters, name: [x / sum(weights) for x in weights]}
    return {**parameters, name: value * (1 - step) if value else step}


def near_pairs(family, steps=STEPS, sizes_of_positive=SIZES):
    for parameters in grids(family, sizes_of_positive):
        free = [x for x in parameters if x not in counts_of(family)]
        for name, step in product(free, steps if by_the_book(family) else steps[1:2]):
            if isinstance(parameters[name], list) and not by_the_book(family):
                continue
            yield moved(parameters, name, step), parameters
        if not by_the_book(family):
            continue
        together = parameters
        for name in free:
            together = moved(together, name, 1e-3)
        yield together, parameters


def far_pairs(family, sizes_of_positive=SIZES):
    grid = grids(family, sizes_of_positive)
    counts = counts_of(family)
    for i, a in enumerate(grid):
        b = grid[(7 * i + 5) % len(grid)]
        # the same count for both: the book has a formula for that
        yield a, b if not by_the_book(family) else {**b, **{name: a[name] for name in counts}}


def batch(family, members, dtype):
    columns = {
        name: torch.tensor([member[name] for member in members], dtype=torch.float64)
        for name in members[0]
    }
    return make(family, columns, dtype)


def as_given(distribution, names):
    """Parameters as the class holds them, after rounding and after what its constructor does."""
    columns = {name: getattr(distribution, name).double().tolist() for name in names}
    count = len(next(iter(columns.values())))
    return [{name: columns[name][i] for name in names} for i in range(count)]


def truth(family, a, b):
    if family.name in closed_forms.FORMULAS:
        return float(closed_forms.kl(family.name, a, b))
    return float(integrate.kl(family, a, family, b))


@pytest.fixture(autouse=True)
def _reduced_digits(monkeypatch):
    """Only the integrals that stand in for a book's formula use them."""
    monkeypatch.setattr(integrate, "DIGITS", DIGITS)
    monkeypatch.setattr(integrate, "WORKING_DIGITS", WORKING_DIGITS)


def errors(duo, pairs, dtype, floor=FLOOR):
    """(relative error, p, q, value, truth), the largest first."""
    left, right = zip(*pairs, strict=True)
    p, q = batch(duo.p, left, dtype), batch(duo.p, right, dtype)
    values = kl_divergence(p, q).double().tolist()
    names = tuple(duo.p.examples[0])
    found = []
    sides = (as_given(p, names), as_given(q, names))
    largest, smallest = torch.finfo(dtype).max, torch.finfo(dtype).tiny
    for a, b, value in zip(*sides, values, strict=True):
        right_value = truth(duo.p, a, b)
        if right_value > largest:
            assert value == float("inf")
        elif right_value < smallest:
            assert 0 <= value <= smallest
        else:
            error = max(abs(value - right_value) - floor, 0.0) / right_value
            found.append((error, a, b, value, right_value))
    return sorted(found, key=lambda row: -row[0])


@over(SAME)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["f64", "f32"]
)
def test_near(duo, dtype, tolerance):
    worst = errors(duo, list(near_pairs(duo.p)), dtype)[0]
    assert worst[0] <= tolerance, worst


@over(SAME)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["f64", "f32"]
)
def test_far(duo, dtype, tolerance):
    worst = errors(duo, list(far_pairs(duo.p)), dtype)[0]
    assert worst[0] <= tolerance, worst


@over(SAME)
def test_gradient_near(duo):
    """The gradient keeps its digits too: it is compared with the truth's own difference."""
    if not by_the_book(duo.p):
        pytest.skip("no textbook formula: differences of integrals are too slow; see gradcheck")
    names = tuple(duo.p.examples[0])
    members = [m for m in grids(duo.p) if not any(isinstance(x, list) for x in m.values())]
    if not members:
        pytest.skip("the elements of a probability vector do not move alone")
    for name in (x for x in names if x not in counts_of(duo.p)):
        pairs = [(moved(m, name, 1e-3), m) for m in members]
        left, right = zip(*pairs, strict=True)
        columns = {key: torch.tensor([m[key] for m in left], dtype=torch.float64) for key in names}
        columns[name].requires_grad_()
        kl = kl_divergence(make(duo.p, columns), batch(duo.p, right, torch.float64))
        (gradient,) = torch.autograd.grad(kl.sum(), columns[name])
        for a, b, slope in zip(left, right, gradient.tolist(), strict=True):
            # the KL is smooth on the scale of the distance, and mpmath has digits for the rest
            step = (a[name] - b[name]) * 2.0**-20
            up, down = ({**a, name: a[name] + sign * step} for sign in (1, -1))
            if exact_kl(duo, a, b) == float("inf"):
                assert slope == 0  # p's support reaches beyond q's
                continue
            wide = (up[name] - a[name]) - (down[name] - a[name])
            difference = float(
                (exact_kl(duo, up, b) - exact_kl(duo, down, b)) / integrate.exact(wide)
            )
            assert slope == pytest.approx(difference, rel=1e-6), (name, a, b)


def exact_kl(duo, a, b):
    if duo.p.name in closed_forms.FORMULAS:
        return closed_forms.kl(duo.p.name, a, b)
    return integrate.kl(duo.p, a, duo.p, b)
