"""The conformance suite: what every registered pair must do, without naming one.

A pair is checked because it is in the registry. Its values start from its families' examples,
whose KLs `python -m tests.conformance.reference` has computed from the densities at 50 digits.
"""

from __future__ import annotations

import math
import pickle
import warnings
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pyro.distributions
import pytest
import torch
from mpmath import mp
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import Distribution, biject_to, constraints, kl_divergence
from torch.distributions.kl import _dispatch_kl

import pyro_kl
from pyro_kl.numerics.quadrature.integrate import tolerance
from pyro_kl.registry.register import upstream_owner

from ..conformance.cases import (
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
    draw_finite,
    function_of,
    is_ordered,
    is_told_exact,
    kl_of,
    make,
    make_pyro,
    newer_compile,
    over,
    over_few,
    reads_a_count,
    relative_error,
    row_of,
    tensors,
    without_validation,
)
from ..conformance.reference import quadrature_values
from ..conformance.reference.multiprecision.densities import log_density_of
from ..conformance.reference.multiprecision.integrate import Integrand, Member

#: A rule that cannot do what it is asked says so, once for each pair.
pytestmark = pytest.mark.filterwarnings("ignore:KL.*tolerance:UserWarning")

METHODS = {
    "quadrature",
    "closed form",
    "exact sum",
    "infinite",
    "rule",
    "point density",
}
#: Parameters of the random tests: positive ones from 10^-2 to 10^2.
DECADES = 2.0
#: Gradients are compared with finite differences, which have their own digits.
NEAR_ONE = 0.4


@pytest.fixture(autouse=True)
def _fine():
    """What is compared with itself must not differ by the tolerance of an integral."""
    with tolerance(1e-11):
        yield


def interior(duo, n=2, decades=NEAR_ONE):
    """Parameters away from all boundaries, with a finite KL, one list for p and one for q."""
    p, q, _ = draw_finite(duo, n, decades)
    return p, q


def leaves(duo, p, q):
    """Independent tensors, p's then q's, that ask for gradients unless they are counts."""
    sides = ((counts_of(duo.p), p), (counts_of(duo.q), q))
    return [
        x.detach().clone().requires_grad_(name not in counts)
        for counts, group in sides
        for name, x in group.items()
    ]


def gradients_of(value, inputs):
    """By every input, zeros for those that do not ask for one."""
    asked = [x for x in inputs if x.requires_grad]
    found = iter(torch.autograd.grad(value, asked, allow_unused=True, materialize_grads=True))
    return [next(found) if x.requires_grad else torch.zeros_like(x) for x in inputs]


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


# --- shapes and dtypes --------------------------------------------------------------------------


@over(FINITE)
def test_broadcasting(duo):
    p, q = draw(duo.p, 3, DECADES), draw(duo.q, 4, DECADES)
    column = {name: x.unsqueeze(1) for name, x in p.items()}
    kl = kl_of(duo, column, q)
    assert kl.shape == (3, 4)
    for i, j in product(range(3), range(4)):
        alone = kl_of(duo, row_of(p, i), row_of(q, j))
        assert alone.shape == ()
        assert kl[i, j] == alone or relative_error(kl[i, j], alone.item()) < duo.digits(1e-13)


@over(FINITE)
def test_expand(duo):
    p, q = make(duo.p, duo.p.examples[0]), make(duo.q, duo.q.examples[1])
    kl = kl_divergence(p, q)
    for a, b in ((p.expand((2, 3)), q), (p, q.expand((2, 3))), (p.expand((2, 1)), q.expand((3,)))):
        assert torch.allclose(kl_divergence(a, b), kl.expand(2, 3), rtol=duo.digits(0.0), atol=0)


@over(FINITE)
def test_pyro_class_and_to_event(duo):
    p, q = draw(duo.p, 3, 1.0), draw(duo.q, 3, 1.0)
    kl = kl_of(duo, p, q)
    a, b = make_pyro(duo.p, p), make_pyro(duo.q, q)
    for left, right in ((a, b), (a, make(duo.q, q)), (make(duo.p, p), b)):
        assert torch.allclose(kl_divergence(left, right), kl, rtol=duo.digits(0.0), atol=0)
    product_kl = kl_divergence(a.to_event(1), b.to_event(1))
    assert product_kl.shape == ()
    assert torch.allclose(product_kl, kl.sum(), rtol=duo.digits(1e-14))
    wider = a.expand((2, 3)).to_event(1)
    assert torch.allclose(
        kl_divergence(wider, b.to_event(1)), kl.sum().expand(2), rtol=duo.digits(1e-14)
    )


@pytest.mark.accuracy
@over(FINITE)
def test_dtype(duo):
    """float32 in, float32 out: the float64 answer at the rounded parameters, rounded once."""
    p, q = draw(duo.p, 50, DECADES), draw(duo.q, 50, DECADES)
    single = kl_divergence(make(duo.p, p, torch.float32), make(duo.q, q, torch.float32))
    assert single.dtype == torch.float32
    mixed = kl_divergence(make(duo.p, p, torch.float32), make(duo.q, q))
    assert mixed.dtype == F64
    # the class may change what it is given (a Categorical divides by the sum), so ask it
    distributions = [make(f, x, torch.float32) for f, x in ((duo.p, p), (duo.q, q))]
    rounded = [
        {name: getattr(distribution, name).double() for name in given}
        for distribution, given in zip(distributions, (p, q), strict=True)
    ]
    truth = kl_of(duo, *rounded)
    fits = truth < torch.finfo(torch.float32).max
    assert single[~fits].isinf().all()
    error = (single.double() - truth).abs()[fits]
    assert (error <= 1e-6 * truth[fits].abs() + 1e-14).all()


# --- gradients ----------------------------------------------------------------------------------


@over(FINITE)
def test_gradcheck(duo):
    p, q = interior(duo)
    function = function_of(duo, p, q)
    inputs = leaves(duo, p, q)
    assert gradcheck(function, inputs, atol=1e-6, rtol=1e-4)
    assert gradgradcheck(function, inputs, atol=1e-5, rtol=1e-3)


# torch's own forward mode compiles a few decompositions, the first time.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@over(duo for duo in DUOS if duo.finite_rows() and not reads_a_count(duo))
def test_hessian(duo):
    """By `torch.func.hessian`, forward over reverse, and by autograd twice: the same."""
    rows = sorted(duo.finite_rows(), key=lambda row: abs(row.kl - 1))
    row = next((row for row in rows if not on_an_end(row)), rows[0])
    p, q = tensors(row.p), tensors(row.q)
    if not is_told_exact(duo, p, q):
        pytest.skip("the integral itself is short of its tolerance, and says so")
    counts = [*(n in counts_of(duo.p) for n in p), *(n in counts_of(duo.q) for n in q)]
    free = tuple(i for i, is_count in enumerate(counts) if not is_count)
    function, inputs = function_of(duo, p, q), leaves(duo, p, q)
    with without_validation():
        found = torch.func.hessian(function, argnums=free)(*(x.detach() for x in inputs))
    wanted = [inputs[i] for i in free]
    slopes = torch.autograd.grad(
        function(*inputs), wanted, create_graph=True, allow_unused=True, materialize_grads=True
    )
    for block, x, slope in zip(found, wanted, slopes, strict=True):
        assert all(h.shape == x.shape + y.shape for h, y in zip(block, wanted, strict=True))
        again = zeros_or_gradients(slope.sum(), wanted)
        for h, twice in zip(block, again, strict=True):
            total = h.reshape(max(x.numel(), 1), -1).sum(0).reshape(twice.shape)
            # what transforms go through has one number of nodes for all distributions
            rtol = 1e-2 if duo.pair.method == "quadrature" else 1e-6
            assert torch.allclose(total, twice, rtol=rtol, atol=rtol * 1e-2)


def located(duo):
    """Whether both distributions have a loc that can be put in one place."""
    return "loc" in duo.p.examples[0] and "loc" in duo.q.examples[0]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@over(duo for duo in FINITE if located(duo))
def test_second_derivatives_where_the_locs_are_one(duo):
    """There kinks, centres and ends of pieces fall together; differences know nothing of it."""
    if duo.p.name == "GeneralizedPareto" and duo.q.kinks:
        pytest.skip("q's kink is at the end of p's support: one second derivative on each side")
    p, q = (
        tensors(duo.p.examples[0]),
        {**tensors(duo.q.examples[0]), "loc": tensors(duo.p.examples[0])["loc"]},
    )
    if not kl_of(duo, p, q).isfinite() or not is_told_exact(duo, p, q):
        pytest.skip("infinite, or the integral is short of its tolerance and says so")
    function, inputs = function_of(duo, p, q), leaves(duo, p, q)
    place = len(p) + [*q].index("loc")

    def slope_at(shift):
        moved = [x.detach() for x in inputs]
        moved[place] = (moved[place] + shift).requires_grad_()
        return gradients_of(function(*moved), moved)[place]

    h = 1e-4
    difference = (slope_at(h) - slope_at(-h)) / (2 * h)
    (slope,) = torch.autograd.grad(function(*inputs), inputs[place], create_graph=True)
    twice = zeros_or_gradients(slope, [inputs[place]])[0]
    with without_validation():
        forward = torch.func.hessian(function, argnums=place)(*(x.detach() for x in inputs))
    assert torch.allclose(twice, difference, rtol=1e-3, atol=1e-6)
    assert torch.allclose(forward, difference, rtol=1e-2, atol=1e-6)


def on_an_end(row):
    """Whether a probability is 0 or 1 or a rate 0, where a second derivative may be infinite."""
    ends = ("gate", "probs", "rate", "concentration")  # 0: a tail that changes its kind
    given = [v for side in (row.p, row.q) for n, v in side.items() if n in ends]
    return any(np.any(np.isin(v, (0.0, 1.0))) for v in given)


def zeros_or_gradients(value, inputs):
    """The gradient; zeros if nothing depends on anything."""
    if not value.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    return torch.autograd.grad(
        value, inputs, retain_graph=True, allow_unused=True, materialize_grads=True
    )


@over(FINITE)
def test_gradient_at_far_apart_parameters(duo):
    """Over decades, where a formula changes branches, against central differences."""
    p, q, _ = draw_finite(duo, 40, DECADES)
    function = function_of(duo, p, q)
    inputs = leaves(duo, p, q)
    kl = function(*inputs)
    gradients = gradients_of(kl.sum(), inputs)
    for i, x in enumerate(inputs):
        if x.dim() > 1 or not x.requires_grad:
            continue  # the elements of a vector are not free to move alone
        step = 1e-5 * x.detach().abs().clamp(min=1e-3)
        if (x.detach() > 0).all() and (x.detach() < 1).all():
            step = step * (1 - x.detach())
        moved = [list(inputs), list(inputs)]
        moved[0][i], moved[1][i] = x + step, x - step
        up, down = function(*moved[0]), function(*moved[1])
        both = up.isfinite() & down.isfinite()
        difference = ((up - down) / (2 * step)).detach()
        noise = 1e-14 * (1 + kl.detach().abs()) / step + 1e-6 * difference.abs()
        scale = noise + 1e-5 * gradients[i].abs() + 1e-8
        # next to the largest float64 a derivative is larger than it
        assert gradients[i][kl < 1e150].isfinite().all()
        both &= kl < 1e150
        assert ((gradients[i] - difference).abs() <= 10 * scale)[both].all()


@over(duo for duo in FINITE if duo.pair.method != "quadrature")
def test_one_node_is_the_formula(duo):
    """What runs a formula at once agrees with its operations one by one, as `torch.func` does."""
    p, q, _ = draw_finite(duo, 40, DECADES)
    function, inputs = function_of(duo, p, q), leaves(duo, p, q)
    value = function(*inputs)
    slopes = gradients_of(value.sum(), inputs)
    free = [i for i, x in enumerate(inputs) if x.requires_grad]

    def of_the_free(*given):
        moved = dict(zip(free, given, strict=True))
        return function(*(moved.get(i, x) for i, x in enumerate(inputs)))

    with without_validation():
        plain, vjp = torch.func.vjp(of_the_free, *(inputs[i].detach() for i in free))
        expected = vjp(torch.ones_like(plain))
    assert torch.allclose(value, plain, rtol=1e-11, atol=1e-15)
    # next to the largest float64 a derivative is larger than it
    for i, right in zip(free, expected, strict=True):
        assert torch.allclose(slopes[i], right, rtol=1e-9, atol=1e-11, equal_nan=True)


def ends_of_q(duo):
    """Rows where a parameter of q is at an end that leaves atoms without mass: it, and the end."""
    given = constraints_of(duo.q)
    for row in duo.finite_rows():
        for name, end in tensors(row.q).items():
            if name in (*counts_of(duo.q), "gate"):
                continue  # the logarithm of 1 - gate has no slope at 1
            highest = {constraints.unit_interval: 1, constraints.nonnegative: 0}.get(given[name])
            if highest is not None and end in (0, highest):
                yield row, name, end


@over(duo for duo in FINITE if duo.p.support.discrete and any(ends_of_q(duo)))
def test_slope_at_the_ends_of_q(duo):
    """Where q's own parameter leaves atoms without mass, the slope is the one-sided one."""
    for row, name, end in ends_of_q(duo):
        at = end.clone().requires_grad_()
        (slope,) = torch.autograd.grad(kl_of(duo, row.p, {**row.q, name: at}), at)
        step = 1e-7 * (1 - 2 * end)
        moved = kl_of(duo, row.p, {**row.q, name: end + step})
        assert slope.item() == pytest.approx(((moved - row.kl) / step).item(), rel=1e-4), row


def neighbours(duo):
    """A finite and an infinite row that share q's parameters, or p's; each may be absent."""
    for shared, own in (("q", "p"), ("p", "q")):
        for good, bad in product(duo.rows, repeat=2):
            mine, theirs = getattr(good, own), getattr(bad, own)
            alike = mine.keys() == theirs.keys() and getattr(good, shared) == getattr(bad, shared)
            same_sizes = alike and all(np.shape(mine[k]) == np.shape(theirs[k]) for k in mine)
            if same_sizes and good.finite and not bad.finite and good.kl > 0:
                yield own, good, bad
                break


@over(duo for duo in FINITE if any(not row.finite for row in duo.rows))
def test_infinite_rows_leave_their_neighbours_alone(duo):
    found = list(neighbours(duo))
    if not found and any(np.ndim(x) for x in (*duo.rows[0].p.values(), *duo.rows[0].q.values())):
        pytest.skip("infinite by the sizes of vectors alone, which a batch shares")
    assert found, "no finite row beside an infinite one: add an example to a family"
    for own, good, bad in found:
        alone = leaves(duo, tensors(good.p), tensors(good.q))
        right = gradients_of(function_of(duo, good.p, good.q)(*alone), alone)
        for share in (True, False):
            p, q = (
                {
                    name: torch.stack([x, tensors(getattr(bad, side))[name]])
                    if side == own or not share
                    else x
                    for name, x in tensors(getattr(good, side)).items()
                }
                for side in ("p", "q")
            )
            check_neighbours(duo, p, q, right)


@over(duo for duo in FINITE if not duo.p.support.discrete and bounds_of(duo.pair.finite))
def test_boundary_rows_leave_their_neighbours_alone(duo):
    """Exactly on the boundary a moment is 1/0, which is worse than anything beyond it."""
    good = duo.finite_rows()[0]
    p, q = tensors(good.p), tensors(good.q)
    alone = leaves(duo, p, q)
    right = gradients_of(function_of(duo, p, q)(*alone), alone)
    for name, bound, _ in bounds_of(duo.pair.finite):
        if name not in p:
            continue
        on_it = {**p, name: torch.tensor(bound, dtype=F64)}
        pair = {key: torch.stack([p[key], on_it[key]]) for key in p}
        check_neighbours(duo, pair, q, right)


def check_neighbours(duo, p, q, right):
    """Row 0 is finite, row 1 is not: the gradient is row 0's alone, by both ways to mask."""
    for masked in (
        lambda kl: kl[kl.isfinite()].sum(),
        lambda kl: torch.where(kl.isfinite(), kl, 0.0).sum(),
    ):
        inputs = leaves(duo, p, q)
        kl = function_of(duo, p, q)(*inputs)
        assert kl.isfinite().tolist() == [True, False]
        gradients = gradients_of(masked(kl), inputs)
        for x, gradient, wanted in zip(inputs, gradients, right, strict=True):
            own = x.dim() > wanted.dim()
            assert torch.allclose(gradient[0] if own else gradient, wanted, rtol=duo.digits(1e-12))
            if own:
                assert (gradient[1] == 0).all()


# --- transformations ----------------------------------------------------------------------------


@over(FINITE)
def test_vmap(duo):
    p, q = draw(duo.p, 5, 1.0), draw(duo.q, 5, 1.0)
    function = function_of(duo, p, q)
    inputs = [*p.values(), *q.values()]
    if is_ordered(duo):
        pytest.skip("Pyro's constructor assigns in place, which vmap refuses")
    with without_validation():
        if reads_a_count(duo):  # one number of atoms for the batch, so that it is not mapped over
            counts = [*(name in counts_of(duo.p) for name in p)]
            counts += [name in counts_of(duo.q) for name in q]
            inputs = [x[0] if is_count else x for x, is_count in zip(inputs, counts, strict=True)]
            dims = tuple(None if is_count else 0 for is_count in counts)
        else:
            dims = tuple(0 for _ in inputs)
        mapped = torch.func.vmap(function, in_dims=dims)(*inputs)
        assert torch.allclose(mapped, function(*inputs), rtol=duo.digits(1e-12))


@over(FINITE)
def test_functional_gradient(duo):
    p, q = interior(duo, n=3)
    function = function_of(duo, p, q)
    inputs = leaves(duo, p, q)
    numbers = tuple(i for i, x in enumerate(inputs) if x.requires_grad)
    if is_ordered(duo):
        pytest.skip("Pyro's constructor assigns in place, which vmap refuses")
    with without_validation():
        by_func = torch.func.vmap(torch.func.grad(function, argnums=numbers))(*inputs)
    every = gradients_of(function(*inputs).sum(), inputs)
    by_autograd = [every[i] for i in numbers]
    for a, b in zip(by_func, by_autograd, strict=True):
        assert torch.allclose(a, b, rtol=duo.digits(1e-10), atol=1e-12)


def check_compiled(duo, backend, **options):
    p, q = draw(duo.p, 3, 1.0), draw(duo.q, 3, 1.0)
    function = function_of(duo, p, q)
    inputs = [*p.values(), *q.values()]
    right = function(*inputs)  # also warms torch's table of dispatched pairs
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend=backend, **options)
    with without_validation():
        assert torch.allclose(compiled(*inputs), right, rtol=duo.digits(1e-12))


@newer_compile
@over_few(duo for duo in FINITE if not reads_a_count(duo))
def test_compile(duo):
    """But for counts: a number of atoms that is read from a tensor breaks the graph."""
    check_compiled(duo, "eager")


@over(SAME[:1])
# inductor's own import defines a class by the deprecated torch.jit.script_method
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_compile_by_inductor(duo):
    # one number at a time: for vectors, torch 2.13 writes C++ that does not compile with
    # ATEN_CPU_CAPABILITY=default
    check_compiled(duo, "inductor", options={"cpp.simdlen": 1})


@over(FINITE)
# torch deprecates the tracer that Pyro's Jit ELBOs are built on; what it warns of beside that is
# that Categorical's number of categories becomes a constant, which it is
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_jit_trace(duo):
    first = [*draw(duo.p, 3, 1.0).values(), *draw(duo.q, 3, 1.0).values()]
    if reads_a_count(duo):
        pytest.skip("a count is read from a tensor: the trace would keep the first")
    function = function_of(duo, duo.p.examples[0], duo.q.examples[0])
    with without_validation():
        traced = torch.jit.trace(function, tuple(first), check_trace=False)
    second = [*draw(duo.p, 3, 1.0).values(), *draw(duo.q, 3, 1.0).values()]
    assert torch.allclose(traced(*second), function(*second), rtol=duo.digits(1e-12))


@over(FINITE)
def test_pickled_distributions(duo):
    p, q = make_pyro(duo.p, duo.p.examples[0]), make_pyro(duo.q, duo.q.examples[0])
    again = [pickle.loads(pickle.dumps(distribution)) for distribution in (p, q)]
    assert torch.equal(kl_divergence(*again), kl_divergence(p, q))
