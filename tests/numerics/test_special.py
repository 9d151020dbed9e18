"""Special functions against mpmath at 60 digits, over decades and at close arguments."""

from __future__ import annotations

import math
import random

import mpmath
import pytest
import torch
from mpmath import log, mp, mpf, psi
from mpmath import loggamma as lgamma
from torch.autograd import gradcheck, gradgradcheck

from pyro_kl.families.continuous.beta import kl_of_two_betas
from pyro_kl.families.continuous.gamma import kl_of_two_gammas
from pyro_kl.families.pairs.exponential_gamma import kl_from_exponential, kl_to_exponential
from pyro_kl.numerics.special.divergences import (
    bernoulli_excess,
    itakura_saito,
    itakura_saito_of,
    kl_div,
    kl_div_of_logs,
)
from pyro_kl.numerics.special.gamma import trigamma
from pyro_kl.numerics.special.gamma_divergences import (
    bregman_lgamma,
    bregman_lgamma_from_one,
    bregman_stirling,
)
from pyro_kl.numerics.special.logarithms import log1pmx, safe_log
from pyro_kl.numerics.special.series import economised, horner

pytestmark = [
    pytest.mark.accuracy,
    # torch's own forward mode is set up by the torch.jit.script that it deprecates
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
]

F64 = torch.float64
SIZES = [1e-6, 1e-3, 0.1, 0.7, 1.0, 3.3, 11.5, 12.0, 12.5, 80.0, 1e3, 1e6, 1e9]
STEPS = [1e-9, -1e-6, 1e-4, -0.01, 0.09, 0.11, -0.3, 0.39, 0.41, 1.0, 9.0]


def stirling(x):
    return lgamma(x) - x * log(x) + x


def stirling_slope(x):
    return psi(0, x) - log(x)


def _bregman(f, slope):
    return lambda x, y: f(x) - f(y) - (x - y) * slope(y)


#: Function, its definition, and its derivatives by the first and the second argument.
TWO_ARGUMENTS = {
    "itakura_saito": (
        itakura_saito,
        lambda x, y: x / y - 1 - log(x / y),
        lambda x, y: 1 / y - 1 / x,
        lambda x, y: 1 / y - x / y**2,
    ),
    "kl_div": (
        kl_div,
        lambda x, y: x * log(x / y) - x + y,
        lambda x, y: log(x / y),
        lambda x, y: 1 - x / y,
    ),
    "bregman_lgamma": (
        bregman_lgamma,
        _bregman(lgamma, lambda y: psi(0, y)),
        lambda x, y: psi(0, x) - psi(0, y),
        lambda x, y: (y - x) * psi(1, y),
    ),
    "bregman_stirling": (
        bregman_stirling,
        _bregman(stirling, stirling_slope),
        lambda x, y: stirling_slope(x) - stirling_slope(y),
        lambda x, y: (y - x) * (psi(1, y) - 1 / y),
    ),
}


def close_and_far():
    pairs = [(y * (1 + step), y) for y in SIZES for step in STEPS]
    return pairs + [(x, y) for x in SIZES[::3] for y in SIZES[::3] if x != y]


def near_pairs():
    """Every size, relative distances from 1e-12 to 1."""
    generator = random.Random(7)
    for _ in range(400):
        y = 10 ** generator.uniform(-7, 8)
        yield y * (1 + generator.choice((-1, 1)) * 10 ** generator.uniform(-12, -0.01)), y


def far_pairs():
    generator = random.Random(7)
    for _ in range(400):
        yield 10 ** generator.uniform(-7, 8), 10 ** generator.uniform(-7, 8)


def middling_pairs():
    """Where the steps, the series and the switch of the logarithm meet."""
    generator = random.Random(7)
    for _ in range(400):
        y = 10 ** generator.uniform(-1, 2.5)
        yield y * generator.uniform(0.3, 3), y


def at(function, arguments):
    with mp.workdps(60):
        return [float(function(*(mpf(x) for x in each))) for each in arguments]


def assert_close(values, truth, tolerance, arguments):
    for value, right, each in zip(values.tolist(), truth, arguments, strict=True):
        assert value == right or abs(value - right) <= tolerance * abs(right), (each, value, right)


@pytest.mark.parametrize(
    ("name", "arguments", "tolerance", "of_slopes"),
    [
        *((name, close_and_far, 1e-12, 1e-11) for name in TWO_ARGUMENTS),
        *(
            ("bregman_stirling", pairs, 1e-13, 2.5e-14)
            for pairs in (near_pairs, far_pairs, middling_pairs)
        ),
    ],
)
def test_divergence(name, arguments, tolerance, of_slopes):
    function, *definitions = TWO_ARGUMENTS[name]
    pairs = [*arguments()]
    x, y = (torch.tensor(side, dtype=F64, requires_grad=True) for side in zip(*pairs, strict=True))
    value = function(x, y)
    found = (value, *torch.autograd.grad(value.sum(), (x, y)))
    for column, definition, most in zip(
        found, definitions, (tolerance, of_slopes, of_slopes), strict=True
    ):
        assert_close(column, at(definition, pairs), most, pairs)


@pytest.mark.parametrize("name", TWO_ARGUMENTS)
def test_divergence_of_equals_is_zero(name):
    x = torch.cat([torch.tensor(SIZES, dtype=F64), torch.logspace(-7, 8, 40, dtype=F64)])
    x.requires_grad_()
    value = TWO_ARGUMENTS[name][0](x, x)
    assert (value == 0).all()
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert (slope == 0).all()


@pytest.mark.parametrize("name", TWO_ARGUMENTS)
def test_divergence_has_two_derivatives(name):
    function = TWO_ARGUMENTS[name][0]
    x = torch.tensor([0.4, 1.0, 2.0, 13.0, 14.0, 3.0], dtype=F64, requires_grad=True)
    y = torch.tensor([0.41, 3.0, 1.9, 13.1, 2.0, 40.0], dtype=F64, requires_grad=True)
    assert gradcheck(function, (x, y), check_forward_ad=True)
    assert gradgradcheck(function, (x, y), rtol=1e-4)


def test_itakura_saito_of_what_is_known():
    ratios = [1 + step for step in STEPS]
    u = torch.tensor(STEPS, dtype=F64)
    value = itakura_saito_of(u, 1 + u)
    with mp.workdps(60):
        truth = [float(mpf(s) - log(1 + mpf(s))) for s in STEPS]
    # 1 + u is rounded, and where u is small it is not looked at
    assert_close(value, truth, 1e-13, ratios)


def test_log1p_minus():
    steps = [-0.999, -0.5, -0.39, *STEPS, 1e-300, 5.0, 1e8]
    u = torch.tensor(steps, dtype=F64, requires_grad=True)
    value = log1pmx(u)
    arguments = [(s,) for s in steps]
    assert_close(value, at(lambda s: mpmath.log1p(s) - s, arguments), 1e-14, arguments)
    (slope,) = torch.autograd.grad(value.sum(), u)
    assert_close(slope, at(lambda s: -s / (1 + s), arguments), 1e-13, arguments)


def test_trigamma():
    arguments = [(x,) for x in SIZES]
    value = trigamma(torch.tensor(SIZES, dtype=F64))
    assert_close(value, at(lambda x: psi(1, x), arguments), 3e-15, arguments)
    x = torch.tensor([0.3, 2.0, 30.0], dtype=F64, requires_grad=True)
    assert gradcheck(trigamma, x)


def test_log_mass():
    mass = torch.tensor([0.0, 1e-300, 0.3, 1.0], dtype=F64, requires_grad=True)
    value = safe_log(mass)
    assert value.tolist()[0] == -float("inf")
    assert torch.equal(value[1:], mass[1:].log())
    (slope,) = torch.autograd.grad(value[2:].sum(), mass)
    assert slope.tolist() == [0.0, 0.0, 1 / 0.3, 1.0]


LOGS = [-700.0, -30.0, -1.5, -0.7, -0.7 + 1e-9, -0.69, -0.3, 0.0]


def test_generalised_kl_of_logs():
    arguments = [(x, y) for x in LOGS for y in LOGS]
    x, y = (
        torch.tensor(side, dtype=F64, requires_grad=True) for side in zip(*arguments, strict=True)
    )
    value = kl_div_of_logs(x, y)
    definition = lambda a, b: mp.exp(a) * (a - b - 1) + mp.exp(b)  # noqa: E731
    assert_close(value, at(definition, arguments), 1e-12, arguments)
    slopes = torch.autograd.grad(value.sum(), (x, y))
    assert_close(slopes[0], at(lambda a, b: mp.exp(a) * (a - b), arguments), 1e-12, arguments)
    assert_close(slopes[1], at(lambda a, b: mp.exp(b) - mp.exp(a), arguments), 1e-12, arguments)


def test_generalised_kl_of_missing_mass():
    inf = float("inf")
    x = torch.tensor([-inf, -0.5, -inf, -0.5], dtype=F64, requires_grad=True)
    y = torch.tensor([-0.5, -inf, -inf, -0.5], dtype=F64, requires_grad=True)
    value = kl_div_of_logs(x, y)
    assert value.tolist() == pytest.approx([torch.tensor(-0.5).exp().item(), inf, 0.0, 0.0])
    slopes = torch.autograd.grad(value[value.isfinite()].sum(), (x, y))
    assert all(slope.isfinite().all() for slope in slopes)


def test_bernoulli_excess():
    counts = [
        (3.0, 2.0, 1.0, 1.0),
        (1.01e6, 3.03e5, 1e6, 3e5),
        (0.2, 50.0, 0.200001, 50.0),
        (1e-3, 1e3, 40.0, 1e-2),
        (5.0, 5.0, 2.5, 2.5),
    ]
    columns = [
        torch.tensor(side, dtype=F64, requires_grad=True) for side in zip(*counts, strict=True)
    ]

    def definition(x1, x0, y1, y0):
        scale = (x1 + x0) / (y1 + y0)
        return x1 * log(x1 / (y1 * scale)) + x0 * log(x0 / (y0 * scale))

    value = bernoulli_excess(*columns)
    truth = at(definition, counts)
    for got, right in zip(value.tolist(), truth, strict=True):
        assert got == pytest.approx(right, rel=1e-10, abs=1e-20)
    small = [
        torch.tensor(side, dtype=F64, requires_grad=True)
        for side in zip(*counts[::3], strict=True)
    ]
    assert gradcheck(bernoulli_excess, small)


# --- divergences of log gamma, and the KLs made of them -----------------------------------------


def test_blocks_broadcasting_and_shapes():
    """One instruction for all shapes: blocks of a long tensor, a number against a matrix."""
    x = torch.rand(2, 4001, dtype=F64) + 0.1
    y = torch.tensor(0.7, dtype=F64)
    value = bregman_stirling(x, y)
    assert value.shape == x.shape
    each = torch.stack([bregman_stirling(a, y) for a in x.flatten()[::500]])
    assert torch.allclose(value.flatten()[::500], each, rtol=1e-14, atol=0)
    assert bregman_stirling(x[:, :0], y).shape == (2, 0)


def test_from_one():
    sizes = [1e-7, 0.3, 1 - 1e-6, 1 + 1e-9, 1.4, 7.0, 1e4, 1e8]
    x = torch.tensor(sizes, dtype=F64, requires_grad=True)
    value = bregman_lgamma_from_one(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    arguments = [(s,) for s in sizes]
    assert_close(value, at(lambda s: lgamma(s) - (s - 1) * psi(0, 1), arguments), 1e-13, arguments)
    assert_close(slope, at(lambda s: psi(0, s) - psi(0, 1), arguments), 1e-13, arguments)


def small(seed, count):
    generator = torch.Generator().manual_seed(seed)
    return [
        (0.3 + 3 * torch.rand(5, dtype=F64, generator=generator)).requires_grad_()
        for _ in range(count)
    ]


FUNCTIONS = {
    "stirling": (bregman_stirling, 2),
    "from one": (bregman_lgamma_from_one, 1),
    "gammas": (kl_of_two_gammas, 4),
    "from exponential": (kl_from_exponential, 3),
    "to exponential": (kl_to_exponential, 3),
    "betas": (kl_of_two_betas, 4),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_two_derivatives(name):
    function, count = FUNCTIONS[name]
    assert gradcheck(function, small(1, count), check_forward_ad=True)
    assert gradgradcheck(function, small(2, count), rtol=1e-4)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_transformed(name):
    """Under vmap, and as a Hessian of torch.func: the same numbers."""
    function, count = FUNCTIONS[name]
    inputs = [x.detach() for x in small(3, count)]
    value = function(*inputs)
    assert torch.allclose(torch.vmap(function)(*inputs), value, rtol=1e-13, atol=1e-16)
    hessians = torch.vmap(torch.func.hessian(function, tuple(range(count))))(*inputs)
    leaves = [x.clone().requires_grad_() for x in inputs]
    first = torch.autograd.grad(function(*leaves).sum(), leaves, create_graph=True)
    for row, slopes in zip(hessians, first, strict=True):
        second = torch.autograd.grad(slopes.sum(), leaves, retain_graph=True)
        for a, b in zip(row, second, strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def test_compiled():
    compiled = torch.compile(kl_of_two_gammas, fullgraph=True, backend="aot_eager")
    leaves = small(4, 4)
    value = compiled(*leaves)
    assert torch.allclose(value, kl_of_two_gammas(*leaves), rtol=1e-13, atol=1e-16)
    ours = torch.autograd.grad(kl_of_two_gammas(*leaves).sum(), leaves)
    theirs = torch.autograd.grad(value.sum(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-11, atol=1e-12)


# --- power series -------------------------------------------------------------------------------


def test_economised_is_shorter_and_as_good():
    """exp(x) on (0, 1/2) from twenty terms."""
    taylor = [1 / math.factorial(n) for n in range(20)]
    shorter = economised(taylor, 0.5)
    assert len(shorter) < 13
    x = torch.linspace(0, 0.5, 101, dtype=torch.float64)
    assert torch.allclose(horner(shorter, x), torch.exp(x), rtol=4e-16, atol=0)


def test_a_constant_is_a_polynomial():
    assert horner([2.0], torch.zeros(3)).tolist() == [2.0, 2.0, 2.0]
    assert economised([2.0], 1.0) == (2.0,)
