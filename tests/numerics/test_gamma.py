"""Bregman divergences of log gamma against mpmath, at every size and distance."""

from __future__ import annotations

import random

import pytest
import torch
from mpmath import log, loggamma, mp, mpf, psi
from torch.autograd import gradcheck, gradgradcheck

from pyro_kl.families.continuous.beta import kl_of_two_betas
from pyro_kl.families.continuous.gamma import kl_of_two_gammas
from pyro_kl.families.pairs.exponential_gamma import kl_from_exponential, kl_to_exponential
from pyro_kl.numerics.special.gamma_divergences import bregman_lgamma_from_one, bregman_stirling

pytestmark = pytest.mark.accuracy

F64 = torch.float64
#: Of the value; slopes lose less.
TOLERANCE = 1e-13


def near_pairs(count, generator):
    """Every size, relative distances from 1e-12 to 1."""
    for _ in range(count):
        y = 10 ** generator.uniform(-7, 8)
        yield y * (1 + generator.choice((-1, 1)) * 10 ** generator.uniform(-12, -0.01)), y


def far_pairs(count, generator):
    for _ in range(count):
        yield 10 ** generator.uniform(-7, 8), 10 ** generator.uniform(-7, 8)


def middling_pairs(count, generator):
    """Where the steps, the series and the switch of the logarithm meet."""
    for _ in range(count):
        y = 10 ** generator.uniform(-1, 2.5)
        yield y * generator.uniform(0.3, 3), y


def stirling(x):
    return loggamma(x) - x * log(x) + x


def slope(x):
    return psi(0, x) - log(x)


def by_definition(x, y):
    """The divergence and its derivatives, at 50 digits."""
    with mp.workdps(50):
        x, y = mpf(x), mpf(y)
        value = stirling(x) - stirling(y) - (x - y) * slope(y)
        return float(value), float(slope(x) - slope(y)), float((y - x) * (psi(1, y) - 1 / y))


def columns(pairs):
    return [torch.tensor(side, dtype=F64) for side in zip(*pairs, strict=True)]


def largest_error(found, truth):
    return max(abs(a - b) / abs(b) for a, b in zip(found.tolist(), truth, strict=True))


@pytest.mark.parametrize("pairs", [near_pairs, far_pairs, middling_pairs])
def test_value_and_slopes(pairs):
    chosen = list(pairs(400, random.Random(7)))
    truth = list(zip(*(by_definition(x, y) for x, y in chosen), strict=True))
    x, y = (side.requires_grad_() for side in columns(chosen))
    value = bregman_stirling(x, y)
    found = value, *torch.autograd.grad(value.sum(), (x, y))
    errors = [largest_error(side, exact) for side, exact in zip(found, truth, strict=True)]
    assert errors[0] < TOLERANCE, errors
    assert max(errors[1:]) < TOLERANCE / 4, errors


def test_equals_lose_nothing():
    x = torch.logspace(-7, 8, 40, dtype=F64, requires_grad=True)
    value = bregman_stirling(x, x)
    assert (value == 0).all()
    assert (torch.autograd.grad(value.sum(), x)[0] == 0).all()


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
    with mp.workdps(50):
        truth = [float(loggamma(mpf(s)) - (mpf(s) - 1) * psi(0, 1)) for s in sizes]
        slopes = [float(psi(0, mpf(s)) - psi(0, 1)) for s in sizes]
    assert largest_error(value, truth) < 1e-13
    assert largest_error(torch.autograd.grad(value.sum(), x)[0], slopes) < 1e-13


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


# torch's own forward mode is set up by the torch.jit.script that it deprecates
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
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
