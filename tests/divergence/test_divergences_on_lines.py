"""Integrals of Renyi's and of Jensen and Shannon's divergence where they are difficult."""

from __future__ import annotations

import math

import pytest
import torch
from pyro.distributions import AffineBeta, Logistic, SoftAsymmetricLaplace
from torch.distributions import (
    Beta,
    Cauchy,
    Chi2,
    Exponential,
    FisherSnedecor,
    Gamma,
    HalfNormal,
    Laplace,
    LogNormal,
    Normal,
    Pareto,
    RelaxedBernoulli,
    StudentT,
    TransformedDistribution,
    Uniform,
    VonMises,
    transforms,
)

import pyro_kl
from pyro_kl.divergence.integrals.renyi import renyi_by_integral

from .making import number, of

pytestmark = pytest.mark.usefixtures("nothing_warned", "double")


# Gil, Alajaji & Linder (2013), table 2, at 30 digits (mpmath).
NARROW = [
    (of(Normal, 0.0, 1e-9), of(Normal, 0.0, 1.0), 20.030118656386467),
    (of(Normal, 0.0, 1e-8), of(Normal, 0.0, 1e8), 36.148214307344794),
    (of(LogNormal, 0.0, 1e-6), of(LogNormal, 0.0, 1.0), 13.122363377405328),
    (of(HalfNormal, 0.2), of(HalfNormal, 15.0), 3.6245186949535464),
    (of(Exponential, 1e8), of(Exponential, 1.0), 17.034386402832475),
]


@pytest.mark.parametrize(("p", "q", "value"), NARROW)
def test_scales_of_different_sizes(p, q, value):
    assert float(pyro_kl.renyi(p, q, 0.5)) == pytest.approx(value, rel=1e-14)
    assert float(pyro_kl.renyi(q, p, 0.5)) == pytest.approx(value, rel=1e-14)


UNIFORM = (
    of(Uniform, [0.0, 0.0, 0.25, 0.0], [1.0, 1.0, 0.75, 1.0]),
    of(Uniform, [-1.0, 0.5, 0.0, 2.0], [4.0, 2.0, 1.0, 3.0]),
)
PARETO = (
    of(Pareto, [1.0, 2.0, 1.0, 2.0], [3.0, 3.0, 1.5, 1.0]),
    of(Pareto, [1.0, 1.0, 2.0, 1.0], [2.0, 1.5, 2.5, 4.0]),
)


@pytest.mark.parametrize(("p", "q"), [UNIFORM, PARETO])
@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9, 1 + 1e-6, 1.3, 2.0])
def test_closed_forms_are_the_integrals(p, q, alpha):
    found, integral = pyro_kl.renyi(p, q, alpha), renyi_by_integral(p, q, alpha)
    assert found.method == "closed form"
    assert torch.allclose(found.value, integral.value, rtol=1e-10)
    # disjoint rows; above order 1 also a p with an end outside of q's
    assert bool(found.value.isinf().any()) == (p is UNIFORM[0] or alpha > 1)


def test_closed_forms_of_neighbours_keep_their_digits():
    found = pyro_kl.renyi(of(Uniform, 0.0, 1.0), of(Uniform, 0.0, 1 + 2.0**-40), 0.5)
    assert float(found) == pytest.approx(2.0**-40, rel=1e-11)
    found = pyro_kl.renyi(of(Pareto, 1.0, 2.0), of(Pareto, 1.0, 2.0 + 2.0**-20), 0.5)
    assert float(found) == pytest.approx(0.25 * 2.0**-42, rel=1e-5)


# Integrals at 30 digits (mpmath).
HEAVY = [
    (of(Normal, 0.0, 1.0), of(Cauchy, 1.5, 0.4), 0.5, 0.72968629403992810),
    (
        of(Logistic, -4.935290327702665, 1.2998022599394918),
        of(StudentT, 0.6271529387812299, 0.2746993298493826, 0.41345503408213335),
        0.9,
        2.3184819502134264,
    ),
]


@pytest.mark.parametrize(("p", "q", "alpha", "value"), HEAVY)
def test_mass_of_q_beyond_the_panels(p, q, alpha, value):
    assert float(pyro_kl.renyi(p, q, alpha)) == pytest.approx(value, rel=1e-13)
    factor = (1 - alpha) / alpha
    assert float(pyro_kl.renyi(q, p, 1 - alpha)) == pytest.approx(factor * value, rel=1e-13)


def test_mass_that_floats_do_not_reach():
    """Half of the mass of the first lies below 1e-300."""
    found = pyro_kl.jensen_shannon(of(Chi2, 0.00109258), of(Chi2, 43.2409))
    assert abs(float(found) - 0.6931462495) < float(found.error)


@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.5, 0.7])
def test_angles_against_a_distribution_on_the_line(alpha):
    p, q = of(VonMises, 0.0, 1.0), of(Normal, 0.0, 1.0)
    x = torch.linspace(-math.pi, math.pi, 20_001, dtype=torch.float64)
    power = alpha * p.log_prob(x) + (1 - alpha) * q.log_prob(x)
    value = torch.trapezoid(power.exp(), x).log() / (alpha - 1)
    assert float(pyro_kl.renyi(p, q, alpha)) == pytest.approx(float(value), abs=1e-6)


def test_rows_are_integrated_on_the_line_that_suits_them():
    ends = [[-0.9541046138880815, 0.125, 0.0, 0.0], [2.5562719177353297, 0.25, 1.0, 1.0]]
    q = of(
        AffineBeta, [0.5, 0.875, 2.0, 2.0], [1.5, 0.9375, 2.0, 2.0], [0.5, 1.5, -1.0, 0.5],
        [1.25, 1.25, 3.0, 3.0],
    )  # fmt: skip
    p = of(Uniform, *ends)
    for divergence in (
        lambda p, q: pyro_kl.renyi(p, q, 0.5).value,
        lambda p, q: pyro_kl.renyi(p, q, 0.3).value,
        pyro_kl.jensen_shannon,
    ):
        together = divergence(p, q)
        for i in range(4):
            one = Uniform(p.low[i], p.high[i])
            other = AffineBeta(*(getattr(q, x)[i] for x in q.arg_constraints))
            assert float(together[i]) == pytest.approx(float(divergence(one, other)), rel=1e-12)


# p and q as functions of one parameter, its value, and the derivative by differences of
# extended-precision integrals (four places, fifth order)
SLOPES_AT_ENDS = [
    (
        pyro_kl.jensen_shannon,
        lambda loc: AffineBeta(number(1.5), number(4.0), loc, number(4.0)),
        of(SoftAsymmetricLaplace, 0.0, 1.0, 1.5, 0.5),
        -1.0,
        0.10738213,
    ),
    (
        lambda p, q: pyro_kl.renyi(q, p, 0.3),
        lambda loc: AffineBeta(number(1.5), number(4.0), loc, number(4.0)),
        of(FisherSnedecor, 4.0, 7.0),
        -1.0,
        -1.15829,
    ),
    (
        pyro_kl.jensen_shannon,
        lambda temperature: RelaxedBernoulli(temperature, probs=number(0.4)),
        of(Cauchy, -9.0, 5.0),
        1.0,
        -1.220182e-4,
    ),
]


@pytest.mark.parametrize(("divergence", "member", "q", "value", "slope"), SLOPES_AT_ENDS)
def test_derivatives_where_a_density_has_a_root_at_its_end(divergence, member, q, value, slope):
    """Inside of the other's support: the slope of the integrand has no bound there."""
    parameter = number(value).requires_grad_()
    (found,) = torch.autograd.grad(divergence(member(parameter), q).value, parameter)
    assert float(found) == pytest.approx(slope, rel=5e-5)


@pytest.mark.parametrize("ends", [(0.4, 4.0), (0.4, 0.4), (1.0, 1.0), (1.5, 4.0)])
def test_derivatives_of_shannon_by_an_end_inside_of_the_other_support(ends):
    def divergence(loc, scale):
        p = AffineBeta(number(ends[0]), number(ends[1]), loc, scale)
        return pyro_kl.jensen_shannon(p, of(Gamma, 2.0, 1.0)).value

    values = [number(x).requires_grad_() for x in (-1.0, 4.0)]
    assert torch.autograd.gradcheck(divergence, values, eps=1e-5, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("scale", [4.0, 4.00001, 4.1])
def test_an_end_where_a_density_is_infinite_inside_of_the_other_support(scale):
    p = of(Gamma, 0.3, 5.0)
    q = AffineBeta(number(1.5), number(4.0), number(-1.0), number(scale))
    # x = t^4 takes the root of the power away
    t = torch.linspace(0, (scale - 1) ** 0.25, 400_001, dtype=torch.float64)[1:-1]
    x = t**4
    for alpha in (0.3, 0.8):
        log = alpha * p.log_prob(x) + (1 - alpha) * q.log_prob(x) + torch.log(4 * t**3)
        value = torch.trapezoid(log.exp(), t).log() / (alpha - 1)
        assert float(pyro_kl.renyi(p, q, alpha)) == pytest.approx(float(value), rel=2e-5)


def test_derivatives_where_a_density_is_infinite_at_its_end_or_there_is_nothing():
    def divergence(loc, concentration):
        q = AffineBeta(number(1.5), number(4.0), loc, number(4.1))
        return pyro_kl.renyi(Gamma(concentration, number(5.0)), q, 0.3).value

    values = [number(x).requires_grad_() for x in (-1.0, 0.3)]
    assert torch.autograd.gradcheck(divergence, values, eps=1e-5, rtol=1e-5)
    low = number(2.0).requires_grad_()
    found = pyro_kl.jensen_shannon(of(Beta, 2.0, 3.0), Pareto(low, number(1.0)))
    assert float(found) == pytest.approx(math.log(2), rel=1e-15)
    assert not found.value.requires_grad


def test_empty_batches():
    p = Cauchy(torch.zeros(0, dtype=torch.float64), torch.ones(0, dtype=torch.float64))
    q = of(Laplace, 0.0, 1.0)
    for found in (
        *(pyro_kl.renyi(p, q, alpha) for alpha in (0.3, 2.0, math.inf)),
        pyro_kl.jensen_shannon(p, q),
        pyro_kl.entropy(RelaxedBernoulli(number(1.0), logits=torch.zeros(0))),
    ):
        assert found.value.shape == (0,)


def test_a_density_that_is_no_number_is_refused():
    image = TransformedDistribution(of(Uniform, 0.0, 1.0), transforms.PowerTransform(4.0))
    for divergence in (lambda p, q: pyro_kl.renyi(p, q, 0.5), pyro_kl.jensen_shannon):
        with pytest.raises(NotImplementedError, match="is no number"):
            divergence(image, of(Beta, 1.25, 1.0))
