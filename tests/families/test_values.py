"""The conformance suite: what every registered pair must do, without naming one.

A pair is checked because it is in the registry. Its values start from its families' examples,
whose KLs `python -m tests.conformance.reference` has computed from the densities at 50 digits.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pyro.distributions
import pytest
import torch
from mpmath import mp
from torch.distributions import Distribution, biject_to, constraints, kl_divergence
from torch.distributions.kl import _dispatch_kl

import pyro_kl
from pyro_kl.numerics.quadrature.integrate import tolerance
from pyro_kl.registry.register import upstream_owner

from ..conformance.cases import (
    DECADES,
    DUOS,
    F64,
    FAMILIES,
    FINITE,
    INFINITE,
    PAIRS,
    QUADRATURE,
    SAME,
    accepted,
    bounds_of,
    constraints_of,
    counts_of,
    draw,
    kl_of,
    make,
    over,
    relative_error,
    row_of,
    tensors,
    without_validation,
)
from ..conformance.close_and_extreme import (
    batch,
    by_the_book,
    errors,
    exact_kl,
    far_pairs,
    grids,
    moved,
    near_pairs,
    reduced_digits,
)
from ..conformance.reference import quadrature_values
from ..conformance.reference.multiprecision.densities import log_density_of
from ..conformance.reference.multiprecision.integrate import Integrand, Member, exact

#: A rule that cannot do what it is asked says so, once for each pair.
pytestmark = [
    pytest.mark.usefixtures("fine"),
    pytest.mark.filterwarnings("ignore:KL.*tolerance:UserWarning"),
]

METHODS = {
    "quadrature",
    "closed form",
    "exact sum",
    "infinite",
    "rule",
    "point density",
}

# --- what is declared ---------------------------------------------------------------------------


def test_metadata():
    for pair in PAIRS:
        assert pair.method in METHODS, pair
        assert pair.finite.strip(), pair
        assert pair.reference.strip(), pair
        assert pair.cases or {pair.p.__name__, pair.q.__name__} <= set(FAMILIES), pair
        if upstream_owner(pair.p, pair.q) is not None:
            assert pair.replaces, f"replaces torch's or Pyro's formula without a reason: {pair}"
        if pair.finite == "never":
            assert pair.method == "infinite", pair


def test_has_reference_values():
    for duo in DUOS:
        # a pair that is infinite whatever the parameters has one row
        last = 1 if duo.pair.finite == "never" else None
        by_integral = duo.pair.method == "quadrature"
        made_by = "tests.conformance.reference" + ".quadrature_values" * by_integral
        assert len(duo.rows) >= (last or 4), f"{duo.id}: run `python -m {made_by}`"
        if by_integral:
            assert len(duo.finite_rows()) >= quadrature_values.FEWEST, (
                f"{duo.id}: run `python -m {made_by}`"
            )
        cells = {(repr(dict(row.p)), repr(dict(row.q))) for row in duo.rows}
        current = {
            (repr(dict(a)), repr(dict(b)))
            for a, b in product(duo.p.examples[:last], duo.q.examples[:last])
        }
        # where few of the examples have a finite integral, there are random distributions too
        ours = cells & current if by_integral else cells
        assert ours == current, f"{duo.id}: examples have changed: run `python -m {made_by}`"


def test_dispatch_is_never_ambiguous():
    classes = {
        cls
        for module in (pyro.distributions, torch.distributions)
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, Distribution)
    }
    assert len(classes) > 90
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for p, q in product(classes, repeat=2):
            _dispatch_kl(p, q)


# --- values -------------------------------------------------------------------------------------


@pytest.mark.accuracy
@over(QUADRATURE)
def test_value_by_quadrature(duo):
    """Every row, as it comes and at 1e-10: right, and the error no larger than it says."""
    for row in duo.rows:
        for asked in (1e-6, 1e-10):
            found = pyro_kl.kl(make(duo.p, row.p), make(duo.q, row.q), tolerance=asked)
            if not row.finite:
                assert found.value == math.inf, row
                continue
            error = abs(found.value.item() - row.kl)
            bound = asked * abs(row.kl) + 1e-13
            assert error <= bound, (row, found)
            claimed = 0.0 if found.error is None else found.error.item()  # an atom: exact
            # and the rule says where it cannot promise that
            assert claimed <= bound or "tolerance" in found.reason, (row, found)
            slack = 1e-15 * abs(row.kl) + row.error + 1e-20
            assert error <= claimed + slack, (row, found, error)


@pytest.mark.accuracy
@over(duo for duo in FINITE if duo.pair.method != "quadrature")
def test_value(duo):
    for row in duo.rows:
        kl = kl_of(duo, row.p, row.q)
        assert kl.dtype == F64
        assert kl.shape == ()
        assert relative_error(kl, row.kl) <= 1e-12 or abs(kl - row.kl) <= 1e-15, (row, kl)


@over(INFINITE)
def test_infinite(duo):
    """Infinite for (almost) all parameters: every row, a broadcast shape, a dtype."""
    for row in duo.rows:
        assert relative_error(kl_of(duo, row.p, row.q), row.kl) <= 1e-12
    p, q = draw(duo.p, 3, 1.0), draw(duo.q, 2, 1.0)
    column = {name: x.unsqueeze(1) for name, x in p.items()}
    kl = kl_divergence(make(duo.p, column, torch.float32), make(duo.q, q, torch.float32))
    assert kl.shape == (3, 2)
    assert kl.dtype == torch.float32
    assert kl.isinf().all()
    assert (kl > 0).all()


CASES = [(pair, case, i) for pair in PAIRS for i, case in enumerate(pair.cases)]


@pytest.mark.accuracy
@pytest.mark.parametrize(
    ("pair", "case"),
    [(pair, case) for pair, case, _ in CASES],
    ids=[f"{pair.name.replace(' || ', '-')}[{i}]" for pair, _, i in CASES],
)
def test_declared_case(pair, case):
    p = (pair.make_p or pair.p)(**tensors(case.p))
    q = (pair.make_q or pair.q)(**tensors(case.q))
    kl = kl_divergence(p, q)
    tolerance = 1e-8 if pair.method == "quadrature" else 1e-12
    assert relative_error(kl, case.value) <= tolerance
    assert relative_error(pair.formula(p, q), case.value) <= tolerance


@pytest.mark.usefixtures("double")
@over(FINITE)
def test_definition(duo):
    """The integral or the sum of torch's own densities: formula and class agree on parameters."""
    for row in sorted(duo.finite_rows(), key=lambda row: abs(math.log(abs(row.kl) or 1e9))):
        p, q = make(duo.p, row.p), make(duo.q, row.q)
        discrete = p.support.is_discrete
        by_definition = summed(p, q) if discrete else integrated(duo, row, p, q)
        if math.isfinite(by_definition):
            break  # or a density of torch's has rounded to 0 where p has mass
    found = pyro_kl.kl(p, q)
    told = 0.0 if found.error is None else found.error.item()
    assert abs(found.value.item() - by_definition) <= max(1e-6 * abs(by_definition), told)


def summed(p, q):
    if p.has_enumerate_support:
        atoms = p.enumerate_support()
    else:
        atoms = torch.arange(20_000)
    total = 0.0
    for block in atoms.double().split(1000):
        log_p = p.log_prob(block)
        inside = q.support.check(block)
        log_q = q.log_prob(torch.where(inside, block, 0.0)).masked_fill(~inside, -math.inf)
        # probs of 0 and 1 are clamped: what has no mass has 2e-16 there
        has_mass = log_p > math.log(1e-15)
        total += torch.where(has_mass, log_p.exp() * (log_p - log_q), 0.0).sum().item()
        if not p.has_enumerate_support and log_p[-1] < -60 and block[-1] > p.mean:
            break
    return total


def kinks_of(duo, row):
    """Where either density has a corner."""
    sides = ((duo.p, row.p), (duo.q, row.q))
    return [float(x) for family, values in sides if family.kinks for x in family.kinks(**values)]


def integrated(duo, row, p, q):
    """Over the line that torch maps to p's support, where p's density has one bump.

    Gauss-Legendre's rule on panels that begin and end at the kinks.
    """
    support, (low, high) = p.support, (duo.p.support.low, duo.p.support.high)
    if support is constraints.real and high != math.inf:
        support = constraints.interval(low, high)  # an angle may be any number
    if torch.as_tensor(getattr(support, "upper_bound", 0.0)) == math.inf:
        support = constraints.greater_than(support.lower_bound)  # an end for some parameters
    to_support, on_line = biject_to(support), support is constraints.real

    def integrand(y):
        if on_line:
            # exponential steps outwards, or a heavy tail is cut off
            x, log_slope = torch.sinh(y), torch.logaddexp(y, -y) - math.log(2)
        else:
            x = to_support(y)
            log_slope = to_support.log_abs_det_jacobian(y, x)
        log_p, ratio = p.log_prob(x) + log_slope, p.log_prob(x) - q.log_prob(x)
        # where next to nothing is left of p, a density of torch's may have rounded q to 0
        nothing = torch.isneginf(log_p) | (torch.isposinf(ratio) & (log_p < -20))
        return log_p, torch.where(nothing, 0.0, log_p.exp() * ratio)

    # torch's own densities overflow further out
    grid = torch.linspace(-100, 100, 20001, dtype=F64)
    log_p, values = integrand(grid)
    matters = (values.abs() + log_p.exp()).nan_to_num(0.0) > math.exp(-40)
    low, high = grid[matters][0].item() - 0.01, grid[matters][-1].item() + 0.01
    inside = torch.tensor(
        [x for x in kinks_of(duo, row) if support.check(torch.tensor(x))], dtype=F64
    )
    cuts = torch.asinh(inside) if on_line else to_support.inv(inside)
    ends = sorted([low, high, *(y for y in cuts.tolist() if low < y < high)])
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(20))
    total = 0.0
    for left, right in pairwise(ends):
        edges = torch.linspace(left, right, 401, dtype=F64)
        half = 0.5 * edges.diff().unsqueeze(-1)
        y = edges[:-1].unsqueeze(-1) + half * (1 + nodes)
        total += (integrand(y.flatten())[1].view_as(y) * half * weights).sum().item()
    return total


@pytest.mark.accuracy
@over(SAME)
def test_of_itself_is_zero(duo):
    for example in duo.p.examples:
        assert abs(kl_of(duo, example, example)) <= 1e-14
    parameters = draw(duo.p, 200, 3.0)
    assert kl_of(duo, parameters, parameters).abs().max() <= 1e-14


@over(duo for duo in QUADRATURE if duo.pair.p is duo.pair.q)
def test_an_integral_of_itself_is_known_to_be_zero(duo):
    for example in duo.p.examples:
        found = pyro_kl.kl(make(duo.p, example), make(duo.p, example))
        assert "tolerance" not in found.reason
        assert found.error is None or found.error.max() <= 1e-12


@pytest.mark.accuracy
@over(FINITE)
def test_never_negative_never_nan(duo):
    p, q = draw(duo.p, 500, DECADES), draw(duo.q, 500, DECADES)
    kl = kl_of(duo, p, q)
    assert not kl.isnan().any()
    # what cancels between the terms of one KL is a few units in the last place of the largest
    assert kl.min() >= -1e-12


@over(QUADRATURE)
def test_an_integral_is_never_negative(duo):
    """With wide parameters: nowhere further below 0 than the error that it tells."""
    with tolerance(1e-6):
        found = pyro_kl.kl(make(duo.p, draw(duo.p, 10, 3.0)), make(duo.q, draw(duo.q, 10, 3.0)))
    told = 0.0 if found.error is None else found.error
    assert not (found.value < -told - 1e-12).any(), found.value


@over(duo for duo in DUOS if duo.pair.method != "infinite")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nan_in_nan_out(duo, dtype):
    """One row for each parameter that is nan, between two rows that are as they are."""
    row = duo.finite_rows()[0]
    names = [*(("p", x) for x in row.p), *(("q", x) for x in row.q)]
    sides = {}
    for side, given in (("p", row.p), ("q", row.q)):
        batch = {name: torch.as_tensor(x, dtype=dtype) for name, x in given.items()}
        batch = {name: x.expand(len(names) + 2, *x.shape).clone() for name, x in batch.items()}
        for i, (other, name) in enumerate(names):
            if other == side:
                batch[name][i + 1] = math.nan
        sides[side] = batch
    with without_validation(), tolerance(1e-6):
        kl = kl_divergence(duo.p.distribution(**sides["p"]), duo.q.distribution(**sides["q"]))
        ends = ({name: x[[0, -1]] for name, x in sides[side].items()} for side in "pq")
        p, q = ends
        alone = kl_divergence(duo.p.distribution(**p), duo.q.distribution(**q))
    assert kl[1:-1].isnan().all(), dict(zip(names, kl[1:-1].tolist(), strict=True))
    assert torch.allclose(kl[[0, -1]], alone, rtol=duo.digits(1e-12), atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("family", "p", "q"),
    [
        (torch.distributions.Normal, (0.0, 1.0), (0.0, math.inf)),
        (torch.distributions.Laplace, (0.3, 1.0), (0.0, math.inf)),
        (torch.distributions.Gumbel, (0.3, 1.0), (0.0, math.inf)),
        (torch.distributions.HalfNormal, (1.0,), (math.inf,)),
        (torch.distributions.Exponential, (math.inf,), (1.0,)),
        (torch.distributions.Gamma, (2.0, math.inf), (1.0, 1.0)),
        (torch.distributions.Gamma, (1.0, math.inf), (0.4, 1.0)),
        (torch.distributions.Pareto, (1.0, math.inf), (1.0, 3.0)),
    ],
)
def test_infinitely_far(family, p, q, dtype):
    """The classes' validation lets them pass: q's density is 0 everywhere, or p is a point."""
    p, q = (family(*torch.tensor(x, dtype=dtype)) for x in (p, q))
    assert kl_divergence(p, q) == math.inf


@over(duo for duo in FINITE if not duo.p.support.discrete)
def test_support_and_infinity(duo):
    """Where the formula says inf or finite, the tails of the densities must agree."""
    p, q = draw(duo.p, 6, 0.6), draw(duo.q, 6, 0.6)
    for name, bound, _ in bounds_of(duo.pair.finite):
        if name in p:
            # on the boundary, a hair beyond it on both sides, and far beyond
            steps = [0.0, -0.01, 0.01, -0.9 * bound]
            p[name][:4] = bound + torch.tensor(steps, dtype=F64)
    kl = kl_of(duo, p, q)
    for i in range(6):
        a = {name: x.item() for name, x in row_of(p, i).items()}
        b = {name: x.item() for name, x in row_of(q, i).items()}
        with mp.workdps(30):
            left, right = Member(duo.p, a), Member(duo.q, b)
            inside = right.low <= left.low and left.high <= right.high
            converges = inside and Integrand(left, right).converges()
            assert bool(kl[i].isfinite()) == converges, (a, b)


@over(duo for duo in FINITE if duo.p.support.discrete)
def test_atoms_and_infinity(duo):
    """The KL is finite where every atom of p, by the book's masses, is one of q's."""
    for i, j in product(range(len(duo.p.examples)), range(len(duo.q.examples))):
        p, q = draw(duo.p, 3, 0.6, which=i), draw(duo.q, 3, 0.6, which=j)
        p, q = with_zeros(duo.p, p), with_zeros(duo.q, q)
        kl = kl_of(duo, p, q)
        for k in range(3):
            a, b = row_of(p, k), row_of(q, k)
            with mp.workdps(30):
                covered = all(
                    has_mass(duo.q, b, atom) for atom in range(60) if has_mass(duo.p, a, atom)
                )
            assert bool(kl[k].isfinite()) == covered, (a, b)


def with_zeros(family, parameters):
    """The same with the last row's probabilities and gates moved to an end, if the class may."""
    given = constraints_of(family)
    moved = {
        name: x.index_fill(0, torch.tensor([2]), float(torch.rand(()) < 0.5))
        if given[name] is constraints.unit_interval
        else x
        for name, x in parameters.items()
    }
    return moved if accepted(family, moved) else parameters


def has_mass(family, parameters, atom):
    values = {name: mpf_of(x) for name, x in parameters.items()}
    return log_density_of(family)(mp, atom, **values) != -mp.inf


def mpf_of(x):
    """A number, or a list of them, without rounding."""
    return [mp.mpf(v) for v in x.tolist()] if x.dim() else mp.mpf(x.item())


@over(FINITE)
def test_support_is_the_classes(duo):
    """What a family says of its support, its class says too."""
    p, q = make(duo.p, duo.p.examples[0]), make(duo.q, duo.q.examples[0])
    assert p.support.is_discrete == duo.p.support.discrete
    x = p.sample((200,))
    inside = q.support.check(x) & torch.tensor(p.support.is_discrete == q.support.is_discrete)
    if duo.pair.finite == "always":
        assert inside.all()
    if duo.p.support.never_inside(duo.q.support):
        assert not inside.all() or p.support.is_discrete != q.support.is_discrete


@pytest.mark.usefixtures("double")
@over(FINITE)
def test_monte_carlo(duo):
    # the row whose log ratio has the lightest tails, as far as its KL tells
    row = min(duo.finite_rows(), key=lambda row: abs(math.log(abs(row.kl) or 1e9)))
    p, q = make(duo.p, row.p), make(duo.q, row.q)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one draw makes up a quarter of the variance
        comparison = pyro_kl.compare(p, q, num_samples=20_000)
    assert comparison.standard_error < 0.1 * (1 + comparison.value.abs())
    judged = replace(comparison, sampled=replace(comparison.sampled, unreliable=None))
    assert abs(judged.z_score) < 4.5


# --- close to each other, and both extreme ------------------------------------------------------


@pytest.mark.accuracy
@over(SAME)
@pytest.mark.parametrize("pairs", [near_pairs, far_pairs], ids=["near", "far"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["f64", "f32"]
)
def test_close_and_extreme(duo, dtype, tolerance, pairs):
    with reduced_digits():
        worst = errors(duo, list(pairs(duo.p)), dtype)[0]
    assert worst[0] <= tolerance, worst


@pytest.mark.accuracy
@over(SAME)
def test_gradient_of_close(duo):
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
            if exact_kl(duo.p, a, b) == float("inf"):
                assert slope == 0  # p's support reaches beyond q's
                continue
            wide = (up[name] - a[name]) - (down[name] - a[name])
            difference = float((exact_kl(duo.p, up, b) - exact_kl(duo.p, down, b)) / exact(wide))
            assert slope == pytest.approx(difference, rel=1e-6), (name, a, b)
