"""The nearest Gaussian of low rank: a stationary point, and no worse than others."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from pyro_kl.glm.covariances.low_rank import project_low_rank


def precision_of(dim, seed=0, ridge=1.0):
    """Of correlated columns, with one direction that all share."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = normal(5 * dim, dim) @ (torch.eye(dim, dtype=torch.float64) + normal(dim, dim) / dim**0.5)
    x = x + normal(5 * dim, 1) * normal(dim)
    return x.mT @ x / 10 + ridge * torch.eye(dim, dtype=torch.float64)


def kl(precision, factor, scale):
    """KL(Normal(0, S) || Normal(0, P^-1)), by its definition."""
    covariance = torch.diag(scale.square()) + factor @ factor.mT
    product = precision @ covariance
    return 0.5 * (product.trace() - torch.logdet(product) - len(scale))


@pytest.mark.parametrize(("dim", "rank"), [(6, 1), (31, 1), (31, 3), (150, 5), (400, 20)])
def test_the_gradient_vanishes(dim, rank):
    precision = precision_of(dim)
    found = project_low_rank(precision, rank)
    factor, scale = found.factor.requires_grad_(), found.scale.requires_grad_()
    assert factor.shape == (dim, rank)
    by_factor, by_scale = torch.autograd.grad(kl(precision, factor, scale), (factor, scale))
    sds = precision.diagonal().rsqrt()
    assert (by_factor * sds.unsqueeze(-1)).abs().max() < 1e-6
    assert (by_scale * scale).abs().max() < 1e-6


@pytest.mark.parametrize(("dim", "rank"), [(8, 1), (8, 2), (12, 3)])
def test_no_start_of_a_plain_search_finds_a_better_one(dim, rank):
    precision = precision_of(dim, seed=3)
    found = project_low_rank(precision, rank)
    best = float(kl(precision, found.factor, found.scale))

    def objective(flat):
        x = torch.from_numpy(flat).requires_grad_()
        value = kl(precision, x[:-dim].reshape(dim, rank), torch.exp(x[-dim:]))
        value.backward()
        return value.item(), x.grad.numpy()

    rng = np.random.default_rng(0)
    size = dim * (rank + 1)
    others = [
        minimize(objective, 0.3 * rng.standard_normal(size), jac=True, method="L-BFGS-B").fun
        for _ in range(10)
    ]
    assert best < min(others) + 1e-5
    assert min(others) < best + 1e-3  # the plain search is able to find it


def test_a_factor_as_wide_as_the_matrix_gives_the_inverse():
    precision = precision_of(10)
    found = project_low_rank(precision, 10)
    assert float(kl(precision, found.factor, found.scale)) == pytest.approx(0.0, abs=1e-4)


def test_of_independent_coefficients_the_factor_is_0():
    precision = torch.diag(torch.tensor([4.0, 1e6, 1e-4], dtype=torch.float64))
    found = project_low_rank(precision, 2)
    torch.testing.assert_close(found.factor, torch.zeros(3, 2, dtype=torch.float64))
    torch.testing.assert_close(found.scale, precision.diagonal().rsqrt())


def test_scales_of_coefficients_may_differ_by_any_factor():
    precision, rank = precision_of(150), 4
    units = torch.logspace(-8, 8, 150, dtype=torch.float64)
    plain = project_low_rank(precision, rank)
    scaled = project_low_rank(precision * torch.outer(units, units), rank)
    torch.testing.assert_close(scaled.scale * units, plain.scale, rtol=1e-5, atol=0)


def test_the_last_result_as_a_start_gives_the_same_in_less_steps():
    precision = precision_of(60)
    first = project_low_rank(precision, 3)
    moved = precision + 0.01 * torch.diag(precision.diagonal())
    cold, warm = project_low_rank(moved, 3), project_low_rank(moved, 3, first)
    torch.testing.assert_close(warm.scale, cold.scale, rtol=1e-5, atol=0)
    product = warm.factor @ warm.factor.mT
    torch.testing.assert_close(product, cold.factor @ cold.factor.mT, rtol=1e-4, atol=1e-5)
