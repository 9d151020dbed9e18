"""Renyi's divergence in closed form, against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import (
    Bernoulli,
    Binomial,
    Dirichlet,
    Geometric,
    Independent,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    Wishart,
)

import pyro_kl

from .making import number

pytestmark = pytest.mark.usefixtures("nothing_warned", "double")
LOG_2 = math.log(2)


def by_definition(p, q, alpha, x, weight):
    powers = alpha * p.log_prob(x) + (1 - alpha) * q.log_prob(x)
    return (powers.logsumexp(0) + math.log(weight)) / (alpha - 1)


EXPONENTIAL_FAMILIES = [
    (Poisson(number(3.0)), Poisson(number(2.0))),
    (Geometric(number(0.3)), Geometric(number(0.2))),
    (Binomial(7, number(0.3)), Binomial(7, number(0.6))),
    (NegativeBinomial(number(3.0), number(0.4)), NegativeBinomial(number(2.5), number(0.5))),
    (Bernoulli(number(0.3)), Bernoulli(logits=number(1.0))),
]


@pytest.mark.parametrize(("p", "q"), EXPONENTIAL_FAMILIES)
@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9, 1 - 1e-3, 1 + 1e-3, 2.0])
def test_discrete(p, q, alpha):
    atoms = 2 if isinstance(p, Bernoulli) else 8 if isinstance(p, Binomial) else 400
    x = torch.arange(float(atoms))
    value = float(by_definition(p, q, alpha, x, 1.0))
    assert float(pyro_kl.renyi(p, q, alpha)) == pytest.approx(value, rel=1e-10)


def normal_in(dimension, seed):
    torch.manual_seed(seed)
    factor = torch.randn(dimension, dimension)
    covariance = factor @ factor.mT / dimension + torch.eye(dimension)
    return MultivariateNormal(torch.randn(dimension), covariance)


def renyi_of_normals(p, q, alpha):
    mixed = (1 - alpha) * p.covariance_matrix + alpha * q.covariance_matrix
    d = p.loc - q.loc
    log_dets = (1 - alpha) * p.covariance_matrix.logdet() + alpha * q.covariance_matrix.logdet()
    return 0.5 * alpha * d @ torch.linalg.solve(mixed, d) - 0.5 / (alpha - 1) * (
        mixed.logdet() - log_dets
    )


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9, 1.2, 2.0])
def test_multivariate_normal(alpha):
    p, q = normal_in(3, 0), normal_in(3, 1)
    q = MultivariateNormal(q.loc, 4 * q.covariance_matrix)
    expected = float(renyi_of_normals(p, q, alpha))
    assert float(pyro_kl.renyi(p, q, alpha)) == pytest.approx(expected, rel=1e-12)
    product = Independent(Normal(p.loc, p.stddev), 1)
    dense = MultivariateNormal(p.loc, torch.diag(p.variance))
    expected = float(renyi_of_normals(dense, q, alpha))
    assert float(pyro_kl.renyi(product, q, alpha)) == pytest.approx(expected, rel=1e-12)
    both = Independent(Normal(q.loc, q.stddev), 1)
    summed = pyro_kl.renyi(product.base_dist, both.base_dist, alpha).value.sum()
    assert float(pyro_kl.renyi(product, both, alpha)) == pytest.approx(float(summed))


def test_multivariate_normal_is_infinite_where_a_direction_is_too_wide():
    wide = torch.diag(number([1.0, 2.5]))
    p, q = (
        MultivariateNormal(torch.zeros(2), wide),
        MultivariateNormal(torch.zeros(2), torch.eye(2)),
    )
    assert pyro_kl.renyi(p, q, 1.6).value.isfinite()
    assert pyro_kl.renyi(p, q, 2.0).value == math.inf


def test_multivariate_normal_has_derivatives_where_p_is_q():
    q = normal_in(3, 0)

    def divergence(loc, tril):
        p = MultivariateNormal(loc, scale_tril=tril.tril(), validate_args=False)
        return pyro_kl.renyi(p, q, 1.3).value

    for loc, tril in ((q.loc, q.scale_tril), (q.loc + 0.1, 0.9 * q.scale_tril)):
        inputs = loc.clone().requires_grad_(), tril.clone().requires_grad_()
        assert torch.autograd.gradcheck(divergence, inputs)
        assert torch.autograd.gradgradcheck(divergence, inputs)


def log_beta(a):
    return torch.lgamma(a).sum() - torch.lgamma(a.sum())


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9, 1.5, 2.0, 5.0])
def test_dirichlet(alpha):
    a, b = number([2.0, 3.0, 0.75]), number([1.0, 1.0, 1.0])
    middle = alpha * a + (1 - alpha) * b
    found = float(pyro_kl.renyi(Dirichlet(a), Dirichlet(b), alpha))
    if (middle <= 0).any():
        assert found == math.inf
    else:
        log_rho = log_beta(middle) - alpha * log_beta(a) - (1 - alpha) * log_beta(b)
        assert found == pytest.approx(float(log_rho) / (alpha - 1), rel=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 0.9, 1.5])
def test_wishart(alpha):
    p = Wishart(number(4.0), scale_tril=number([[1.0, 0.0], [0.3, 0.7]]))
    q = Wishart(number(5.5), scale_tril=number([[1.2, 0.0], [-0.4, 1.0]]))

    def log_partition(df, precision):
        rest = df * LOG_2 + torch.special.multigammaln(0.5 * df, 2)
        return rest - 0.5 * df * precision.logdet()

    df = alpha * p.df + (1 - alpha) * q.df
    precision = alpha * p.precision_matrix + (1 - alpha) * q.precision_matrix
    ends = alpha * log_partition(p.df, p.precision_matrix)
    ends = ends + (1 - alpha) * log_partition(q.df, q.precision_matrix)
    value = float((log_partition(df, precision) - ends) / (alpha - 1))
    assert float(pyro_kl.renyi(p, q, alpha)) == pytest.approx(value, rel=1e-12)
