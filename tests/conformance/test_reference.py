"""The independent reference is right itself: against 40 digits, closed forms, and the families."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from mpmath import mp

from .cases import FAMILIES, VALUES
from .reference import divergence_values, load, quadrature_values
from .reference.extended_precision.functions import (
    LD,
    gauss_legendre,
    log_i0,
    loggamma,
    scaled_erfc,
)
from .reference.extended_precision.kl import knows, truth
from .reference.multiprecision import closed_forms, integrate
from .reference.random_members import random_pairs

#: Without an extended format numpy's longdouble is a double, and the reference has fewer digits.
pytestmark = pytest.mark.skipif(np.finfo(LD).eps > 1e-18, reason="no extended precision here")


def number(x):
    """An extended number in mpmath, all of its digits."""
    high = float(x)
    return mp.mpf(high) + mp.mpf(float(LD(x) - high))


@pytest.mark.parametrize(
    ("ours", "exact", "places"),
    [
        (loggamma, mpmath.loggamma, (0.01, 0.3, 1.5, 7.7, 11.9, 12.0, 1000.5, 1e6)),
        (
            scaled_erfc,
            lambda x: mp.exp(mp.mpf(x) ** 2) * mp.erfc(x),
            (0, 0.01, 2, 7.8, 7.9, 50),
        ),
        (log_i0, lambda x: mp.log(mp.besseli(0, x)) - x, (0.01, 1.0, 30.0, 100.0)),
    ],
    ids=["loggamma", "scaled_erfc", "log_i0"],
)
def test_functions(ours, exact, places):
    with mp.workdps(40):
        for x in places:
            right = exact(x)
            assert abs(number(ours(LD(x))) - right) <= 1e-17 * (1 + abs(right)), x


def test_gauss_legendre_is_exact_for_polynomials():
    x, w = gauss_legendre(20)
    for power in range(0, 40, 2):
        assert abs((w * x**power).sum() - LD(2) / (power + 1)) < 1e-18


CLOSED = {name: rows for name, rows in load().items() if knows(*name.split(" || "))}


@pytest.mark.parametrize("name", CLOSED)
def test_integrals_of_closed_forms(name):
    """30 digits are known of these, from another rule in another arithmetic."""
    p, q = name.split(" || ")
    for row in CLOSED[name]:
        found, right = truth(p, row["p"], q, row["q"]), LD(row["kl"])
        if np.isinf(right):
            assert np.isposinf(found.kl), row
        else:
            assert abs(found.kl - right) <= found.error, (row, found)
            assert found.error <= 1e-13 * (1 + abs(right)), (row, found)


@pytest.mark.parametrize("name", [x for x in closed_forms.FORMULAS if knows(x)])
def test_slopes(name):
    """Against the derivatives of the textbook's formula at 60 digits."""
    family = FAMILIES[name]
    drawn = random_pairs(family, family, 12, finite=12, seed=1, slopes=True)
    rows = [row for row in drawn if not {"logits"} & {*row[0], *row[1]}][:4]
    assert rows
    for a, b, right in rows:
        distributions = [
            {key: integrate.exact(x) for key, x in distribution.items()} for distribution in (a, b)
        ]
        for (side, key), (found, error) in right.slopes.items():
            i = "pq".index(side)

            def of(x, i=i, key=key, distributions=distributions):
                moved = [
                    {**distribution, key: x} if j == i else distribution
                    for j, distribution in enumerate(distributions)
                ]
                return closed_forms.FORMULAS[name](*moved)

            with mp.workdps(closed_forms.DIGITS):
                exact = float(mp.diff(of, distributions[i][key]))
            assert abs(found - exact) <= error + 1e-12 * (1 + abs(exact)), (a, b, side, key)
            assert error <= 1e-8 * (1 + abs(exact))


def test_what_is_stored_is_good():
    for name, rows in quadrature_values.load().items():
        for row in rows:
            kl = float(row["kl"])
            assert math.isinf(kl) or row["error"] <= 1e-12 * max(abs(kl), 1e-3), (name, row)


def test_a_tail_that_is_too_slow_is_no_reference():
    """The mean of this Pareto comes from places that no float reaches."""
    slow = truth(
        "Pareto", {"scale": 0.4, "alpha": 1 + 1e-7}, "Laplace", {"loc": -1.0, "scale": 1.0}
    )
    assert not quadrature_values.good(slow)


def test_random_distributions_can_be_drawn_again_and_are_finite():
    p, q = FAMILIES["Uniform"], FAMILIES["AffineBeta"]
    first, second = ([*random_pairs(p, q, 4, finite=3)] for _ in range(2))
    assert [row[:2] for row in first] == [row[:2] for row in second]
    assert sum(bool(np.isfinite(right.kl)) for *_, right in first) >= 3


def test_divergences_enclose_the_kl():
    """Orders 1 - 1e-6 and 1 + 1e-6 are on both sides of the stored KL, which is made elsewhere."""
    seen = 0
    for name, rows in divergence_values.load().items():
        known = {(str(x["p"]), str(x["q"])): float(x["kl"]) for x in VALUES.get(name, ())}
        for row in rows:
            kl = known.get((str(row["p"]), str(row.get("q"))))
            if kl is None or None in row["renyi"]:
                continue
            below, above = (float(row["renyi"][i]) for i in (3, 4))
            slack = (row["error"] + 1e-15) * max(kl, 1e-3)
            assert below <= kl + slack, (name, row)
            assert kl <= above + slack, (name, row)
            seen += math.isfinite(kl)
    assert seen > 700
