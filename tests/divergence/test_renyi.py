"""Renyi's divergence: where it is infinite, its limits, wrappers, derivatives."""

from __future__ import annotations

import math

import pytest
import torch
from pyro.distributions import Logistic
from pyro.distributions import Normal as pyro_normal
from torch.distributions import (
    Beta,
    Categorical,
    Cauchy,
    Gamma,
    Geometric,
    Gumbel,
    HalfCauchy,
    Kumaraswamy,
    Laplace,
    LogNormal,
    NegativeBinomial,
    Normal,
    Pareto,
    Poisson,
    StudentT,
    TransformedDistribution,
    Uniform,
    Weibull,
    transforms,
)

import pyro_kl

from .making import number

pytestmark = pytest.mark.usefixtures("nothing_warned", "double")
LOG_2 = math.log(2)


FINITE_BELOW = [
    # p, q, the order from which on the divergence is infinite
    (StudentT(number(1.0)), StudentT(number(3.0)), 1.5),
    (Cauchy(number(0.0), number(1.0)), StudentT(number(2.0)), 2.0),
    (Laplace(number(0.0), number(1.0)), Laplace(number(1.0), number(0.75)), 4.0),
    (Logistic(number(0.0), number(1.0)), Laplace(number(0.0), number(0.5)), 2.0),
    (Normal(number(0.0), number(1.0)), Normal(number(0.0), number(0.5)), 4 / 3),
    (Gamma(number(1.0), number(1.0)), Weibull(number(0.5), number(1.0)), 2.0),
    (Beta(number(0.5), number(1.0)), Kumaraswamy(number(1.0), number(1.0)), 2.0),
    (Beta(number(0.5), number(1.0)), Kumaraswamy(number(1.5), number(1.0)), 1.5),
    (Gamma(number(2.0), number(1.0)), LogNormal(number(0.0), number(1.0)), 1.0),
    (Beta(number(0.5), number(1.0)), Laplace(number(0.0), number(1.0)), 2.0),
    (Weibull(number(0.3), number(0.8)), Cauchy(number(-9.0), number(5.0)), 5.0),
    (HalfCauchy(number(1.0)), Gamma(number(2.0), number(1.0)), 1.0),
    (LogNormal(number(0.0), number(1.0)), HalfCauchy(number(1.0)), math.inf),
    (Gumbel(number(0.0), number(1.0)), Normal(number(0.0), number(9.0)), 1.0),
    (Normal(number(0.0), number(9.0)), Gumbel(number(0.0), number(1.0)), 1.0),
    (Geometric(number(0.25)), NegativeBinomial(number(1.0), number(0.5625)), 2.0),
    (Geometric(number(0.25)), Poisson(number(3.0)), 1.0),
    (Poisson(number(3.0)), Geometric(number(0.9)), math.inf),
    (Uniform(number(0.0), number(1.0)), Uniform(number(0.5), number(2.0)), 1.0),
]


@pytest.mark.parametrize(("p", "q", "order"), FINITE_BELOW)
def test_infinite_from_an_order_on(p, q, order):
    below = [0.5, 0.9 * order] if math.isfinite(order) and order > 1 else [0.5]
    below += [50.0] if order == math.inf else []
    for alpha in below:
        assert pyro_kl.renyi(p, q, alpha).value.isfinite(), alpha
    if math.isfinite(order):
        for alpha in (1.01 * order, 2 * order, 50.0):
            assert pyro_kl.renyi(p, q, alpha).value == math.inf, alpha


def test_no_gradient_of_an_infinite_row_reaches_another():
    df = number([3.0, 1.0]).requires_grad_()
    value = pyro_kl.renyi(StudentT(df), StudentT(number(2.5), number(0.5)), 5.0).value
    assert value.isinf().tolist() == [False, True]
    (slope,) = torch.autograd.grad(value[0], df)
    assert slope[0] != 0
    assert slope[1] == 0


@pytest.mark.parametrize("alpha", [0.5, 5.0])
def test_rows_with_a_parameter_that_is_nan(alpha):
    p = Laplace(number(0.5), number([1.5, math.nan, 4.0]), validate_args=False)
    value = pyro_kl.renyi(p, Laplace(number(0.0), number(1.25)), alpha).value
    assert value.isnan().tolist() == [False, True, False]
    assert value.isinf().tolist() == [False, False, alpha > 1]


def test_disjoint_supports():
    p, q = Uniform(number(0.0), number(1.0)), Uniform(number(2.0), number(3.0))
    assert pyro_kl.renyi(p, q, 0.5).value == math.inf
    assert float(pyro_kl.jensen_shannon(p, q)) == pytest.approx(LOG_2, rel=1e-12)


def test_orders_without_a_formula_of_their_own():
    p, q = Categorical(number([0.2, 0.8, 0.0])), Categorical(number([0.5, 0.25, 0.25]))
    assert float(pyro_kl.renyi(p, q, 0)) == pytest.approx(-math.log(0.75))
    assert float(pyro_kl.renyi(p, q, math.inf)) == pytest.approx(math.log(0.8 / 0.25))
    assert pyro_kl.renyi(p, q, 1) == pyro_kl.kl(p, q)
    assert float(pyro_kl.renyi(p, q, 1e4)) == pytest.approx(math.log(3.2), abs=1e-3)
    assert float(pyro_kl.renyi(p, q, 1e-6)) == pytest.approx(-math.log(0.75), abs=1e-5)
    assert pyro_kl.renyi(q, p, 2.0).value == math.inf
    u, v = Uniform(number(0.0), number(1.0)), Uniform(number(0.0), number(4.0))
    assert float(pyro_kl.renyi(u, v, 0)) == pytest.approx(math.log(4))


@pytest.mark.parametrize("alpha", [-1, math.nan, "2", None, True])
def test_order_that_is_none(alpha):
    p = Normal(number(0.0), number(1.0))
    with pytest.raises(ValueError, match="alpha must be"):
        pyro_kl.renyi(p, Normal(number(1.0), number(1.0)), alpha)


CLOSE = [
    (lambda e: Gamma(2.0 + e, number(1.0)), 1e-6),
    (lambda e: StudentT(5.0 + e, number(0.0), number(1.0)), 1e-4),
    (lambda e: Weibull(1.0 + e, number(1.5)), 1e-6),
    (lambda e: Laplace(e, number(1.0)), 1e-6),
    (lambda e: Categorical(torch.stack((0.2 + e, number(0.3), number(0.5)))), 1e-6),
    (lambda e: Poisson(3.0 + e), 1e-6),
]


@pytest.mark.parametrize(("member", "step"), CLOSE)
@pytest.mark.parametrize("alpha", [0.5, 0.9, 2.0])
def test_close_to_each_other(member, step, alpha):
    p, q = member(number(step)), member(number(0.0))
    divergence = float(pyro_kl.kl(p, q))
    assert float(pyro_kl.renyi(p, q, alpha)) == pytest.approx(alpha * divergence, rel=20 * step)
    assert float(pyro_kl.jensen_shannon(p, q)) == pytest.approx(divergence / 4, rel=20 * step)
    assert float(pyro_kl.renyi(q, q, alpha)) == 0


def test_shared_maps_change_nothing():
    p, q = Normal(number(0.3), number(1.0)), Laplace(number(0.0), number(2.0))
    maps = [transforms.TanhTransform(), transforms.AffineTransform(1.0, 3.0)]
    images = [TransformedDistribution(x, maps) for x in (p, q)]
    assert pyro_kl.renyi(*images, 2.0).value == pyro_kl.renyi(p, q, 2.0).value
    assert pyro_kl.jensen_shannon(*images).value == pyro_kl.jensen_shannon(p, q).value


def test_masks():
    loc = number([0.0, 1.0, 2.0])
    mask = torch.tensor([True, False, True])
    p, q = pyro_normal(loc, 1.0).mask(mask), pyro_normal(0.5, 2.0).mask(mask)
    for divergence in (lambda a, b: pyro_kl.renyi(a, b, 2.0), pyro_kl.jensen_shannon):
        value = divergence(p, q).value
        assert value[1] == 0
        assert value[2] == divergence(Normal(loc, 1.0), Normal(number(0.5), 2.0)).value[2]
        with pytest.raises(NotImplementedError, match="mask on one side"):
            divergence(p, pyro_normal(0.5, 2.0))


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (Normal, Laplace),
        (Laplace, Normal),
        (StudentT, Cauchy),
        (Normal, Normal),
        (Gamma, Weibull),
        (Gamma, Gamma),
        (Pareto, HalfCauchy),
    ],
)
@pytest.mark.parametrize("alpha", [0.9, 1.1])
def test_derivatives(p, q, alpha):
    starts = {
        Normal: (0.3, 1.1), Laplace: (-0.5, 2.0), StudentT: (4.0, 0.2, 1.0), Cauchy: (0.1, 1.5),
        Gamma: (2.0, 3.0), Weibull: (1.0, 0.9), Pareto: (1.2, 2.0), HalfCauchy: (0.7,),
    }  # fmt: skip
    own, other = starts[p], starts[q]
    values = [number(x).requires_grad_() for x in (*own, *(1.05 * x for x in other))]

    def divergence(*parameters):
        pair = p(*parameters[: len(own)]), q(*parameters[len(own) :])
        return pyro_kl.renyi(*pair, alpha).value

    if bool(divergence(*values).isfinite()):
        assert torch.autograd.gradcheck(divergence, values)

    def shannon(*parameters):
        return pyro_kl.jensen_shannon(p(*parameters[: len(own)]), q(*parameters[len(own) :])).value

    assert torch.autograd.gradcheck(shannon, values)
