"""Fits against optima that are found another way, and what an ascent promises."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from scipy.special import log_expit, log_ndtr

from pyro_kl.glm import LogisticRegression, PoissonRegression, ProbitRegression

# The Gauss-Hermite rule of 100 nodes: an integral that the package does not use.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(100)
WEIGHTS = WEIGHTS / WEIGHTS.sum()

LOG_LIKELIHOODS = {
    LogisticRegression: lambda y, eta: log_expit((2 * y - 1) * eta),
    ProbitRegression: lambda y, eta: log_ndtr((2 * y - 1) * eta),
    PoissonRegression: lambda y, eta: (
        y * eta - np.exp(eta) - torch.lgamma(torch.tensor(y + 1)).numpy()
    ),
}


def data(model, num_rows=60, num_features=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_rows, num_features))
    eta = 0.3 + x @ np.linspace(-1.0, 1.0, num_features)
    if model is PoissonRegression:
        return x, rng.poisson(np.exp(eta)).astype(float)
    return x, (rng.normal(size=num_rows) < eta).astype(float)


def minus_elbo(parameters, model, x, y, scale, is_full, beta):
    """The ELBO by its definition: quadrature of the rows, the formula of the Gaussians' KL."""
    z = np.column_stack([np.ones(len(x)), x])
    d = z.shape[1]
    loc, log_sd = parameters[:d], parameters[d : 2 * d]
    lower = np.diag(np.exp(log_sd))
    if is_full:
        lower[np.tril_indices(d, -1)] = parameters[2 * d :]
    mean, sd = z @ loc, np.linalg.norm(z @ lower, axis=1)
    eta = mean[:, None] + sd[:, None] * NODES
    likelihood = (LOG_LIKELIHOODS[model](y[:, None], eta) @ WEIGHTS).sum()
    variances = (lower**2).sum(1)
    kl = 0.5 * ((variances + loc**2) / scale**2 - 1.0 + 2.0 * np.log(scale)).sum() - log_sd.sum()
    return beta * kl - likelihood


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("model", LOG_LIKELIHOODS)
def test_the_optimum_of_a_general_optimiser(model, beta, covariance):
    x, y = data(model)
    fitted = model(0.7, bias_scale=2.0, beta=beta, covariance=covariance, tol=1e-9).fit(x, y)
    scale = np.array([2.0, 0.7, 0.7, 0.7])
    is_full = covariance == "full"
    start = np.zeros(8 + 6 * is_full)
    found = scipy.optimize.minimize(
        minus_elbo, start, (model, x, y, scale, is_full, beta), method="BFGS", tol=1e-8
    )
    assert fitted.converged_
    assert fitted.elbo_ == pytest.approx(-found.fun, abs=1e-6)
    np.testing.assert_allclose(fitted.loc_, found.x[:4], atol=2e-4)
    if is_full:
        lower = np.diag(np.exp(found.x[4:8]))
        lower[np.tril_indices(4, -1)] = found.x[8:]
        np.testing.assert_allclose(fitted.scale_tril_, lower, atol=2e-4)
    else:
        np.testing.assert_allclose(fitted.scale_, np.exp(found.x[4:8]), rtol=1e-4)


@pytest.mark.parametrize("prior", ["normal", "laplace", "studentt", "horseshoe"])
@pytest.mark.parametrize("covariance", ["full", "diagonal", "low_rank"])
def test_the_elbo_never_decreases(prior, covariance):
    x, y = data(LogisticRegression, 200, 12)
    fitted = LogisticRegression(prior=prior, covariance=covariance, rank=2, tol=1e-8).fit(x, y)
    assert (np.diff(fitted.trace_) >= 0).all()
    assert fitted.elbo_ >= fitted.trace_[-1]
    assert fitted.elbo_ == pytest.approx(fitted.expected_log_likelihood_ - fitted.kl_, abs=1e-9)


DESIGNS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(2.5, size=shape),
    "rare": lambda rng, shape: (rng.random(shape) < 0.02).astype(float),
    "correlated": lambda rng, shape: rng.normal(size=shape) + 2.0 * rng.normal(size=(shape[0], 1)),
    "sorted": lambda rng, shape: np.sort(rng.normal(size=shape), axis=0),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("design", DESIGNS)
def test_within_the_tolerance_after_a_start_from_samples(design, dtype):
    rng = np.random.default_rng(1)
    x = DESIGNS[design](rng, (20_000, 8))
    eta = x @ rng.normal(size=8) - 1.0
    y = rng.random(20_000) < 1 / (1 + np.exp(-eta))
    tight = LogisticRegression(tol=1e-9).fit(x, y)
    loose = LogisticRegression(tol=1e-4).fit(x.astype(dtype), y)
    assert loose.converged_
    assert loose.n_iter_ <= tight.n_iter_
    # The exact ELBO of the loose result: nothing moves it where no pass is allowed.
    scale, loc = np.array([5.0] + 8 * [1.0]), loose.loc_
    z = np.column_stack([np.ones(len(x)), x])
    sd = np.linalg.norm(z @ loose.scale_tril_, axis=1)
    nodes = (z @ loc)[:, None] + sd[:, None] * NODES
    likelihood = (log_expit((2 * y[:, None] - 1) * nodes) @ WEIGHTS).sum()
    variances = (loose.scale_tril_**2).sum(1)
    kl = 0.5 * ((variances + loc**2) / scale**2 - 1.0 + 2.0 * np.log(scale)).sum()
    kl -= np.log(np.diag(loose.scale_tril_)).sum()
    assert 0 <= tight.elbo_ - (likelihood - kl) + 1e-7 <= 1e-4 + 1e-7


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("model", [LogisticRegression, ProbitRegression, PoissonRegression])
@pytest.mark.parametrize("seed", range(3))
def test_within_the_tolerance_where_few_rows_tell_a_coefficient(model, covariance, seed):
    rng = np.random.default_rng(seed)
    x = (rng.random((3000, 3)) < [0.01, 0.03, 0.5]).astype(float)
    y = (rng.random(3000) < 0.3).astype(float)
    y[x[:, 0] == 1] = 0.0  # no finite maximum of the likelihood
    tight = model(5.0, covariance=covariance, tol=1e-6, max_iter=300).fit(x, y)
    loose = model(5.0, covariance=covariance, max_iter=1000).fit(x, y)
    assert loose.converged_
    log_sd, below = np.log(loose.scale_), []
    if covariance == "full":
        log_sd = np.log(np.diag(loose.scale_tril_))
        below = loose.scale_tril_[np.tril_indices(4, -1)]
    parameters = np.concatenate([loose.loc_, log_sd, below])
    scale = np.full(4, 5.0)
    elbo = -minus_elbo(parameters, model, x, y, scale, covariance == "full", 1.0)
    assert elbo == pytest.approx(tight.elbo_, abs=1e-4)
    assert loose.elbo_ == pytest.approx(elbo, abs=2e-4)


def test_rows_that_repeat_round_alike():
    """Their rounding errors add up; the ELBO of float32 is known no better than that."""
    rng = np.random.default_rng(1)
    x = (rng.random((20_000, 4)) < 0.02).astype(np.float32)
    y = rng.random(20_000) < 0.3
    fitted = LogisticRegression().fit(x, y)
    assert fitted.converged_
    assert fitted.n_iter_ < 10


@pytest.mark.parametrize("seed", range(4))
def test_counts_with_a_feature_that_a_sample_does_not_have(seed):
    rng = np.random.default_rng(seed)
    x = 10.0 * (rng.random((30_000, 1)) < 0.0004)
    y = rng.poisson(np.exp(0.2 * x[:, 0]))
    fitted = PoissonRegression().fit(x, y)
    assert fitted.converged_
    assert (np.diff(fitted.trace_) >= 0).all()
    assert abs(fitted.loc_[1] - 0.2) < 4 * fitted.scale_[1]
