"""Renyi's, Jensen and Shannon's divergence and entropies of all families, against stored values.

The values are those of `conformance/reference/divergence_values.py`: a new family joins by being
declared, and by `make reference`.
"""

from __future__ import annotations

import zlib
from math import inf

import pytest
import torch

import pyro_kl

from ..conformance.cases import FAMILIES, make
from ..conformance.reference import divergence_values
from ..conformance.reference.divergence_values import ORDERS

pytestmark = pytest.mark.usefixtures("nothing_warned", "double")

#: What a value may be off, relative, or by what is told of it.
DIGITS = 1e-9
#: What rounding leaves of a value that is 0.
ROUNDING = 1e-15
STORED = divergence_values.load()
PAIRS = {name: rows for name, rows in STORED.items() if " || " in name}


def key(name):
    return zlib.crc32(name.encode())


def has_formula(name):
    """Whether a pair is of one family with a closed form of Renyi's divergence."""
    p, q = (FAMILIES[x] for x in name.split(" || "))
    return p is q and bool(p.renyi or p.geometric_mixture)


def marks(name):
    """All formulas and one pair in 36 for `make test`; the others for the sweep.

    One in 6 is for `make accuracy`.
    """
    formula = has_formula(name)
    found = [pytest.mark.accuracy] if formula or key(name) % 6 == 0 else []
    return found if formula or key(name) % 36 == 0 else [*found, pytest.mark.sweep]


def check(found, right, row, what):
    """A value within `DIGITS` or what is told of it; infinite exactly where the reference is."""
    if right is None:
        return
    value, right = float(found), float(right)
    if inf in (value, right):
        assert value == right, (row, what, found)
        return
    told = 0.0 if found.error is None else float(found.error)
    slack = row["error"] * max(abs(right), 1e-3)
    assert abs(value - right) <= max(DIGITS * abs(right), told) + slack + ROUNDING, (
        row,
        what,
        found,
    )


def test_what_is_stored_is_of_the_declared_examples():
    """Or `make reference` is to be run."""
    expected = {f"{p.name} || {q.name}" for p, q in divergence_values.pairs()}
    assert PAIRS.keys() == expected
    for name, rows in STORED.items():
        of = [FAMILIES[x] for x in name.split(" || ")]
        for row in rows:
            sides = (row[side] for side in ("p", "q") if side in row)
            for family, parameters in zip(of, sides, strict=True):
                assert parameters in [dict(x) for x in family.examples], (name, row)
    rows = [row for rows in PAIRS.values() for row in rows]
    known = [x for row in rows for x in (*row["renyi"], row["jensen_shannon"])]
    assert sum(x is None for x in known) < 0.002 * len(known)
    assert sum(x not in ("inf", None) for x in known) > 0.6 * len(known)


def batches(rows):
    """Rows whose parameters have the same names and sizes, together."""
    found = {}
    for row in rows:
        form = [(name, torch.tensor(x).shape) for side in "pq" for name, x in row[side].items()]
        found.setdefault(tuple(form), []).append(row)
    return found.values()


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=marks(x), id=x.replace(" || ", "-")) for x in PAIRS]
)
def test_renyi_and_jensen_shannon(name):
    families = [FAMILIES[x] for x in name.split(" || ")]
    for rows in batches(PAIRS[name]):
        p, q = (
            make(family, {name: [row[side][name] for row in rows] for name in rows[0][side]})
            for family, side in zip(families, "pq", strict=True)
        )
        # in the sweep every second order: it has all pairs
        few = key(name) % 6 and not has_formula(name)
        chosen = range(key(name) % 2, len(ORDERS), 2) if few else range(len(ORDERS))
        for i in chosen:
            order = ORDERS[i]
            if any(row["renyi"][i] is not None for row in rows):
                for found, row in zip(pyro_kl.renyi(p, q, order), rows, strict=True):
                    check(found, row["renyi"][i], row, order)
        for found, row in zip(pyro_kl.jensen_shannon(p, q), rows, strict=True):
            check(found, row["jensen_shannon"], row, "Jensen-Shannon")


@pytest.mark.accuracy
@pytest.mark.parametrize("name", [x for x in FAMILIES if x in STORED])
def test_entropy(name):
    for row in STORED[name]:
        check(pyro_kl.entropy(make(FAMILIES[name], row["p"])), row["entropy"], row, "entropy")
