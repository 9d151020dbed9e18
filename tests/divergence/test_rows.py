"""Rows of a batch, shapes, dtypes and derivatives of the divergences of all families.

A row of a batch is what it is alone, whatever the others are: infinite, unknown or on other lines.
"""

from __future__ import annotations

import math
import zlib

import pytest
import torch

import pyro_kl

from ..conformance.cases import (
    FAMILIES,
    _expands,
    counts_of,
    draw,
    make,
    row_of,
    tensors,
    without_validation,
)
from ..conformance.reference import divergence_values

pytestmark = pytest.mark.usefixtures("nothing_warned", "double")

DIVERGENCES = {
    "renyi(0.3)": lambda p, q: pyro_kl.renyi(p, q, 0.3),
    "renyi(0.8)": lambda p, q: pyro_kl.renyi(p, q, 0.8),
    "renyi(1.5)": lambda p, q: pyro_kl.renyi(p, q, 1.5),
    "jensen_shannon": pyro_kl.jensen_shannon,
    "cross_entropy": pyro_kl.cross_entropy,
}


#: Classes whose constructor refuses an empty batch.
NEVER_EMPTY = {"AffineBeta"}


def some_pairs(one_in, of_those):
    """One pair in `one_in` for `make sweep`, and one in `of_those` of them for `make test`."""
    found = []
    for p, q in divergence_values.pairs():
        key = zlib.crc32(f"{p.name}, {q.name}".encode())
        if key % one_in == 0 and ("VonMises" not in (p.name, q.name) or p is q):
            marks = () if key % (one_in * of_those) == 0 else pytest.mark.sweep
            found.append(pytest.param(p.name, q.name, id=f"{p.name}-{q.name}", marks=marks))
    return pytest.mark.parametrize(("p", "q"), found)


def close(found, right, error=None):
    """Whether values agree to 1e-9, or to twice what is told; or are infinite, or both nan."""
    slack = 1e-9 * right.abs().nan_to_num(posinf=0.0) + 1e-13
    slack = slack if error is None else torch.maximum(slack, 2 * error)
    equal = (found == right) | (found.isnan() & right.isnan())
    return bool((equal | ((found - right).abs() <= slack)).all())


def drawn(p, q, n=3):
    return (FAMILIES[p], draw(FAMILIES[p], n, 0.6)), (FAMILIES[q], draw(FAMILIES[q], n, 0.6))


@some_pairs(48, 8)
def test_rows_and_shapes(p, q):
    (p, a), (q, b) = drawn(p, q)
    column, two = (
        {name: x[:2].unsqueeze(1) for name, x in a.items()},
        {name: x[1:] for name, x in b.items()},
    )
    for name, divergence in DIVERGENCES.items():
        batch = divergence(make(p, a), make(q, b))
        assert batch.value.shape == (3,)
        alone = [divergence(make(p, row_of(a, i)), make(q, row_of(b, i))) for i in range(3)]
        assert close(torch.stack([x.value for x in alone]), batch.value, batch.error), name

        grid = divergence(make(p, column), make(q, two))
        assert grid.value.shape == (2, 2)
        assert grid.error is None or grid.error.shape == (2, 2)
        assert close(grid.value[1, 0], batch[1].value, batch[1].error), name

        if _expands(p):
            wide = divergence(make(p, row_of(a, 0)).expand((2, 3)), make(q, row_of(b, 0)))
            assert wide.value.shape == (2, 3)
            assert close(wide.value, alone[0].value, alone[0].error), name


@some_pairs(48, 8)
def test_float32(p, q):
    """That of the rounded parameters, rounded."""
    (p, a), (q, b) = drawn(p, q)
    short = [{name: x.float() for name, x in y.items()} for y in (a, b)]
    for name, divergence in DIVERGENCES.items():
        members = [make(f, x, torch.float32) for f, x in zip((p, q), short, strict=True)]
        found = divergence(*members)
        right = divergence(*(make(f, x) for f, x in zip((p, q), short, strict=True)))
        assert found.value.dtype == torch.float32
        known = right.value.isfinite()
        assert torch.equal(found.value.isfinite(), known), name
        assert torch.allclose(found.value[known].double(), right.value[known], 1e-6, 1e-9), name


def leaves(parameters):
    """The parameters, and those that may be differentiated by."""
    found = {name: x.clone().requires_grad_() for name, x in parameters.items()}
    return found, [*found.values()]


@some_pairs(48, 8)
def test_a_row_that_is_nan_leaves_the_others_as_they_are(p, q):
    (p, a), (q, b) = drawn(p, q)
    for name, divergence in DIVERGENCES.items():
        (first, inputs), (other, _) = leaves(a), leaves(b)
        before = divergence(make(p, first), make(q, other))
        if not before.value[[0, 2]].isfinite().all() or not before.value.requires_grad:
            continue
        slopes = torch.autograd.grad(before.value[[0, 2]].sum(), inputs, allow_unused=True)
        unknown = {key: x.detach().clone() for key, x in a.items()}
        key = next(iter(unknown))
        unknown[key][1] = math.nan
        first, inputs = leaves(unknown)
        with without_validation():
            after = divergence(make(p, first), make(q, b))
            found = torch.autograd.grad(after.value[[0, 2]].sum(), inputs, allow_unused=True)
        assert after.value[1].isnan() or before.value[1].isinf(), name
        assert close(after.value[[0, 2]], before.value[[0, 2]]), name
        for x, y in zip(found, slopes, strict=True):
            if x is not None:
                assert torch.allclose(x[[0, 2]], y[[0, 2]], 1e-6, 1e-9), (name, x, y)


@some_pairs(48, 8)
def test_no_rows(p, q):
    """An empty batch has an empty answer."""
    (p, a), (q, b) = drawn(p, q)
    if not NEVER_EMPTY & {p.name, q.name}:
        nothing = [make(f, {k: x[:0] for k, x in y.items()}) for f, y in ((p, a), (q, b))]
        for name, divergence in DIVERGENCES.items():
            assert divergence(*nothing).value.shape == (0,), name


@some_pairs(24, 12)
def test_derivatives(p, q):
    """Against differences, by all parameters of both but counts and vectors."""
    p, q = FAMILIES[p], FAMILIES[q]
    a, b = divergence_values.cells(p, q)[0]
    sides = [(f, tensors(x)) for f, x in ((p, a), (q, b))]
    names = [
        (i, name)
        for i, (family, given) in enumerate(sides)
        for name in given
        if name not in counts_of(family) and not given[name].dim() and given[name]
    ]

    def of(divergence):
        def function(*values):
            moved = [dict(given) for _, given in sides]
            for (i, name), x in zip(names, values, strict=True):
                moved[i][name] = x
            members = (f.distribution(**x) for (f, _), x in zip(sides, moved, strict=True))
            return divergence(*members).value

        return function

    values = [sides[i][1][name].clone().requires_grad_() for i, name in names]
    for divergence in DIVERGENCES.values():
        function = of(divergence)
        with without_validation():
            value = function(*values)
            if value.requires_grad and value.isfinite():
                torch.autograd.gradcheck(function, values, eps=1e-5, atol=1e-6, rtol=1e-4)
