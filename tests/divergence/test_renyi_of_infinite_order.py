"""Renyi's divergence of infinite order: the logarithm of the largest importance weight."""

from __future__ import annotations

import math

import pytest
import torch
from pyro.distributions import InverseGamma, Logistic, ZeroInflatedPoisson
from torch.distributions import (
    Beta,
    Binomial,
    Categorical,
    Cauchy,
    Exponential,
    Gamma,
    GeneralizedPareto,
    Geometric,
    Gumbel,
    HalfCauchy,
    Independent,
    Laplace,
    LogNormal,
    MixtureSameFamily,
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

from .making import number, of

pytestmark = pytest.mark.usefixtures("nothing_warned", "double")


NORMALS = math.log(1.3 / 0.7) + 0.4**2 / 2 / (1.3**2 - 0.7**2)
NEAR = math.log(0.70001 / 0.7) + 0.4**2 / 2 / (0.70001**2 - 0.7**2)
EXAMPLES = [
    # p, q, the upper bound of log p - log q by calculus
    (of(Normal, 0.4, 0.7), of(Normal, 0.0, 1.3), NORMALS),
    (of(Normal, 0.4, 0.7), of(Normal, 0.0, 0.70001), NEAR),
    (of(Normal, 0.4, 1.3), of(Normal, 0.0, 1.3), math.inf),
    (of(Normal, 0.4, 1.3), of(Normal, 0.4, 1.3), 0.0),
    (of(LogNormal, 0.4, 0.7), of(LogNormal, 0.0, 1.3), NORMALS),
    (of(Exponential, 3.0), of(Exponential, 2.0), math.log(1.5)),
    (of(Exponential, 2.0), of(Exponential, 3.0), math.inf),
    (of(Gamma, 3.0, 2.0), of(Gamma, 2.0, 1.0), math.log(4) - 1),
    (of(Gamma, 3.0, 2.0), of(Gamma, 2.0, 2.0), math.inf),
    (of(Gamma, 2.0, 2.0), of(Gamma, 3.0, 2.0), math.inf),
    (of(InverseGamma, 3.0, 2.0), of(InverseGamma, 2.0, 1.0), math.log(4) - 1),
    (of(Weibull, 1.0, 2.0), of(Weibull, 2.0, 2.0), math.log(4)),
    (of(Laplace, 0.0, 1.0), of(Laplace, 1.0, 1.0), 1.0),
    (of(Laplace, 0.0, 1.0), of(Laplace, 1.0, 2.0), math.log(2) + 0.5),
    (of(Logistic, 0.0, 1.0), of(Laplace, 0.5, 1.0), math.log(2) + 0.5),
    (of(Laplace, 0.0, 2.0), of(Normal, 0.0, 9.0), math.inf),
    (of(Cauchy, 0.0, 1.0), of(Cauchy, 1.0, 2.0), 0.9624236501192069),
    (of(StudentT, 3.0), of(StudentT, 3.0, 0.0, 2.0), math.log(2)),
    (of(StudentT, 3.0), of(StudentT, 4.0, 0.0, 2.0), math.inf),
    (of(Gumbel, 1.0, 1.0), of(Gumbel, 0.0, 1.0), 1.0),
    (of(Gumbel, 0.0, 1.0), of(Gumbel, 1.0, 1.0), math.inf),
    (of(Pareto, 2.0, 3.0), of(Pareto, 1.0, 3.0), math.log(8)),
    (of(Pareto, 2.0, 3.0), of(Pareto, 1.0, 2.0), math.log(6)),
    (of(Pareto, 1.0, 3.0), of(Pareto, 2.0, 2.0), math.inf),
    (of(GeneralizedPareto, 0.0, 1.0, 0.5), of(GeneralizedPareto, 0.0, 2.0, 0.5), math.log(2)),
    (of(Beta, 2.0, 1.0), of(Beta, 1.0, 1.0), math.log(2)),
    (of(Beta, 0.9, 1.0), of(Beta, 1.0, 1.0), math.inf),
    (of(Uniform, 0.0, 1.0), of(Uniform, -1.0, 4.0), math.log(5)),
    (of(Uniform, 0.0, 1.0), of(Normal, -1.0, 1.0), 0.5 * math.log(2 * math.pi) + 2),
    (
        TransformedDistribution(of(Cauchy, 0.0, 1.0), transforms.AbsTransform()),
        of(HalfCauchy, 1.0),
        0.0,
    ),
    (
        TransformedDistribution(of(Laplace, 0.0, 0.5), transforms.ExpTransform()),
        of(Pareto, 1.0, 1.0),
        math.inf,
    ),
    # counts
    (of(Poisson, 2.0), of(Poisson, 3.0), 1.0),
    (of(Poisson, 3.0), of(Poisson, 2.0), math.inf),
    (of(Geometric, 0.5), of(Geometric, 0.25), math.log(2)),
    (of(Geometric, 0.25), of(Geometric, 0.5), math.inf),
    (of(Geometric, 0.25), of(Poisson, 3.0), math.inf),
    (of(Poisson, 3.0), of(Binomial, 5, 0.5), math.inf),
    (of(Categorical, [0.2, 0.8, 0.0]), of(Categorical, [0.5, 0.25, 0.25]), math.log(3.2)),
]


@pytest.mark.parametrize(("p", "q", "value"), EXAMPLES)
def test_examples(p, q, value):
    found = pyro_kl.renyi(p, q, math.inf)
    error = 0.0 if found.error is None else float(found.error)
    assert float(found) == pytest.approx(value, rel=1e-13, abs=max(1e-13, error))
    assert error <= 1e-9 * max(value, 1e-3)


COUNTS = [
    (of(Poisson, 30.0), of(NegativeBinomial, 3.0, 0.4)),
    (of(NegativeBinomial, 30.0, 0.4), of(NegativeBinomial, 3.0, 0.5)),
    (of(NegativeBinomial, 0.5, 0.4), of(NegativeBinomial, 3.0, 0.5)),
    (of(NegativeBinomial, 3.0, 0.5), of(NegativeBinomial, 5.0, 0.5)),
    (of(Geometric, 0.75), of(NegativeBinomial, 0.5, 0.5)),
    (of(Poisson, 3.0), of(Geometric, 0.125)),
]


@pytest.mark.parametrize(("p", "q"), COUNTS)
def test_counts(p, q):
    k = torch.arange(400.0, dtype=torch.float64)
    expected = float((p.log_prob(k) - q.log_prob(k)).max())
    assert float(pyro_kl.renyi(p, q, math.inf)) == pytest.approx(expected, rel=1e-13)


def test_additional_zeros():
    k = torch.arange(60.0, dtype=torch.float64)
    p = ZeroInflatedPoisson(number(2.0), gate=number(0.3))
    for gate in (0.1, 0.5):
        q = ZeroInflatedPoisson(number(3.0), gate=number(gate))
        expected = float((p.log_prob(k) - q.log_prob(k)).max())
        assert float(pyro_kl.renyi(p, q, math.inf)) == pytest.approx(expected, rel=1e-13)
    assert pyro_kl.renyi(q, p, math.inf).value == math.inf
    only_zeros = ZeroInflatedPoisson(number(3.0), gate=number(1.0))
    assert float(pyro_kl.renyi(only_zeros, p, math.inf)) == pytest.approx(-float(p.log_prob(k[0])))


def test_rows_products_and_mixtures():
    p = Normal(number([0.4, 0.0, math.nan]), number([0.7, 2.0, 1.0]), validate_args=False)
    value = pyro_kl.renyi(p, of(Normal, 0.0, 1.3), math.inf).value
    assert float(value[0]) == pytest.approx(NORMALS, rel=1e-13)
    assert value[1] == math.inf
    assert value[2].isnan()
    both = Independent(of(Normal, [0.4, 0.4], [0.7, 0.7]), 1)
    other = Independent(of(Normal, [0.0, 0.0], [1.3, 1.3]), 1)
    assert float(pyro_kl.renyi(both, other, math.inf)) == pytest.approx(2 * NORMALS, rel=1e-13)
    parts = of(Normal, [-3.0, 3.0], [0.1, 1.0])
    mixture = MixtureSameFamily(Categorical(number([0.5, 0.5])), parts)
    q = of(Normal, 0.0, 2.0)
    x = torch.linspace(-3.1, -2.9, 200_001, dtype=torch.float64)
    expected = float((mixture.log_prob(x) - q.log_prob(x)).max())
    assert float(pyro_kl.renyi(mixture, q, math.inf)) == pytest.approx(expected, rel=1e-9)


def test_a_maximum_beyond_the_floats():
    """At log x = -780."""
    maps = [transforms.ExpTransform(), transforms.PowerTransform(number(2.0))]
    q = TransformedDistribution(of(Laplace, 1.5, 0.4), maps)
    with pytest.raises(NotImplementedError, match="further out"):
        pyro_kl.renyi(of(LogNormal, -60.0, 24.0), q, math.inf)


def test_it_is_the_limit_of_the_orders():
    for p, q in (
        (of(Logistic, 0.0, 1.0), of(Cauchy, 0.0, 2.0)),
        (of(Beta, 2.0, 3.0), of(Uniform, -1.0, 4.0)),
    ):
        limit = float(pyro_kl.renyi(p, q, math.inf))
        orders = [float(pyro_kl.renyi(p, q, alpha)) for alpha in (50.0, 5000.0)]
        assert orders[0] < orders[1] < limit < orders[1] + 0.01


PAIRS = [
    (Normal, (0.4, 0.7), Normal, (0.1, 1.3)),
    (Laplace, (0.1, 1.0), Laplace, (1.0, 2.0)),
    (Gamma, (3.0, 2.0), Gamma, (2.0, 1.0)),
    (Uniform, (0.1, 1.0), Normal, (-1.0, 1.0)),
    (Poisson, (2.125,), NegativeBinomial, (3.0, 0.4)),
]


@pytest.mark.parametrize(("p", "first", "q", "second"), PAIRS)
def test_derivatives(p, first, q, second):
    values = [number(x).requires_grad_() for x in (*first, *second)]

    def divergence(*given):
        return pyro_kl.renyi(p(*given[: len(first)]), q(*given[len(first) :]), math.inf).value

    assert torch.autograd.gradcheck(divergence, values)
