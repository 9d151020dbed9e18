"""Two members of one family, close to each other or both extreme: where formulas lose digits.

Variational inference ends there. The textbook's formula, in mpmath at 60 digits, is the truth.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import product

import numpy as np
import torch
from torch.distributions import constraints, kl_divergence

from .cases import constraints_of, counts_of, make
from .reference.multiprecision import closed_forms, integrate

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


def exact_kl(family, a, b):
    """An mpmath number, from the book's formula if there is one."""
    if by_the_book(family):
        return closed_forms.kl(family.name, a, b)
    return integrate.kl(family, a, family, b)


@contextmanager
def reduced_digits():
    """Fewer digits of the integrals that stand in for a book's formula: they are slow."""
    before = integrate.DIGITS, integrate.WORKING_DIGITS
    integrate.DIGITS, integrate.WORKING_DIGITS = DIGITS, WORKING_DIGITS
    try:
        yield
    finally:
        integrate.DIGITS, integrate.WORKING_DIGITS = before


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
        right_value = float(exact_kl(duo.p, a, b))
        if right_value > largest:
            assert value == float("inf")
        elif right_value < smallest:
            assert 0 <= value <= smallest
        else:
            error = max(abs(value - right_value) - floor, 0.0) / right_value
            found.append((error, a, b, value, right_value))
    return sorted(found, key=lambda row: -row[0])
