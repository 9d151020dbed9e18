"""Special functions against mpmath at 60 digits, over decades and at close arguments."""

from __future__ import annotations

import mpmath
import pytest
import torch
from mpmath import log, mp, mpf, psi
from mpmath import loggamma as lgamma
from torch.autograd import gradcheck, gradgradcheck

from pyro_kl.numerics.special.divergences import (
    bernoulli_excess,
    itakura_saito,
    itakura_saito_of,
    kl_div,
    kl_div_of_logs,
)
from pyro_kl.numerics.special.gamma import trigamma
from pyro_kl.numerics.special.gamma_divergences import bregman_lgamma, bregman_stirling
from pyro_kl.numerics.special.logarithms import log1pmx, safe_log

pytestmark = pytest.mark.accuracy

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


def at(function, arguments):
    with mp.workdps(60):
        return [float(function(*(mpf(x) for x in each))) for each in arguments]


def assert_close(values, truth, tolerance, arguments):
    for value, right, each in zip(values.tolist(), truth, arguments, strict=True):
        assert value == right or abs(value - right) <= tolerance * abs(right), (each, value, right)


@pytest.mark.parametrize("name", TWO_ARGUMENTS)
def test_divergence(name):
    function, definition, by_x, by_y = TWO_ARGUMENTS[name]
    arguments = close_and_far()
    x, y = (
        torch.tensor(side, dtype=F64, requires_grad=True) for side in zip(*arguments, strict=True)
    )
    value = function(x, y)
    assert_close(value, at(definition, arguments), 1e-12, arguments)
    slopes = torch.autograd.grad(value.sum(), (x, y))
    assert_close(slopes[0], at(by_x, arguments), 1e-11, arguments)
    assert_close(slopes[1], at(by_y, arguments), 1e-11, arguments)


@pytest.mark.parametrize("name", TWO_ARGUMENTS)
def test_divergence_of_equals_is_zero(name):
    x = torch.tensor(SIZES, dtype=F64, requires_grad=True)
    value = TWO_ARGUMENTS[name][0](x, x)
    assert (value == 0).all()
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert (slope == 0).all()


# torch's own forward mode is set up by the torch.jit.script that it deprecates
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
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
