"""Fits with shrinkage priors: stationary points of an ELBO that is written down here again."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Laplace, Normal, StudentT
from torch.nn.functional import logsigmoid

from pyro_kl.glm import LogisticRegression
from pyro_kl.glm.priors.horseshoe import Horseshoe

#: The trapezoidal rule for a standard normal variable.
NODES = torch.linspace(-9.0, 9.0, 601, dtype=torch.float64)
WEIGHTS = torch.exp(-0.5 * NODES.square()) / torch.exp(-0.5 * NODES.square()).sum()
#: A grid in the logarithm of |x|, on which the horseshoe's pole at 0 is no pole.
GRID = torch.linspace(-30.0, 6.0, 9001, dtype=torch.float64)

PRIORS = {
    "normal": lambda scale: Normal(torch.zeros_like(scale), scale),
    "laplace": lambda scale: Laplace(torch.zeros_like(scale), scale),
    "studentt": lambda scale: StudentT(4.0, torch.zeros_like(scale), scale),
    "horseshoe": Horseshoe,
}


def data(num_rows=150, num_features=8):
    """Two features matter, the others do not."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num_rows, num_features))
    y = rng.random(num_rows) < 1 / (1 + np.exp(-1.5 * x[:, 0] + x[:, 1] - 0.3))
    return x, y


def expected_log_prior(prior, loc, sd):
    """E log p of each coefficient, by the trapezoidal rule on both sides of 0."""
    size = torch.exp(GRID).unsqueeze(-1)
    total = torch.zeros((), dtype=torch.float64)
    for x in (size, -size):
        density = torch.exp(Normal(loc, sd).log_prob(x))
        total = total + (density * prior.log_prob(x) * size).sum() * (GRID[1] - GRID[0])
    return total


def elbo(x, y, prior, loc, root):
    """The ELBO at Normal(loc, root root'), by quadrature."""
    z = torch.cat([torch.ones(len(x), 1, dtype=torch.float64), torch.tensor(x)], dim=-1)
    sign = 2.0 * torch.tensor(y, dtype=torch.float64) - 1.0
    mean, sd = z @ loc, (z @ root).square().sum(-1).sqrt()
    eta = mean.unsqueeze(-1) + sd.unsqueeze(-1) * NODES
    likelihood = (logsigmoid(sign.unsqueeze(-1) * eta) @ WEIGHTS).sum()
    entropy = 0.5 * torch.logdet(root @ root.mT) + 0.5 * len(loc) * math.log(2 * math.pi * math.e)
    marginal = root.square().sum(-1).sqrt()
    return likelihood + expected_log_prior(prior, loc, marginal) + entropy


def parameters(covariance):
    """Free parameters of a fitted covariance, and the root that they make."""
    if hasattr(covariance, "scale_tril"):
        return [covariance.scale_tril.clone()], torch.tril
    if hasattr(covariance, "factor"):
        given = [covariance.factor.clone(), covariance.scale.clone()]
        return given, lambda factor, scale: torch.cat([factor, torch.diag(scale)], dim=-1)
    return [covariance.scale.clone()], torch.diag


@pytest.mark.parametrize("covariance", ["full", "diagonal", "low_rank"])
@pytest.mark.parametrize("name", PRIORS)
def test_the_fit_is_a_stationary_point_and_its_elbo_is_right(name, covariance):
    x, y = data()
    model = LogisticRegression(
        0.7, bias_scale=2.0, prior=name, covariance=covariance, rank=1, tol=1e-10, max_iter=2000
    ).fit(x, y)
    assert model.converged_
    scale = torch.tensor([2.0] + 8 * [0.7], dtype=torch.float64)
    loc = torch.tensor(model.loc_).requires_grad_()
    given, root_of = parameters(model.covariance_)
    given = [x.requires_grad_() for x in given]
    value = elbo(x, y, PRIORS[name](scale), loc, root_of(*given))
    assert model.elbo_ == pytest.approx(value.item(), abs=1e-6)
    slopes = torch.autograd.grad(value, (loc, *given))
    # A gradient of g in a direction of sd s is a distance of (g s)^2 / 2 nats from the optimum.
    sd = torch.tensor(model.scale_)
    for slope in slopes:
        per_sd = slope * (sd if slope.dim() == 1 else sd.unsqueeze(-1))
        assert per_sd.abs().max() < 1e-4


def wide():
    """More features than rows: steps contract slowly."""
    x = np.random.default_rng(1).normal(size=(60, 100))
    return x, x[:, 0] + x[:, 1] > 0


def long():
    """Many rows for each feature: steps contract as slowly as the prior's curvature changes."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, 10))
    weights = np.array([2.0, -1.0, 0.1, 0.03] + 6 * [0.0])
    return x, rng.random(2000) < 1 / (1 + np.exp(-x @ weights))


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("scale", [0.02, 1.0])
@pytest.mark.parametrize("shape", [wide, long])
@pytest.mark.parametrize("name", PRIORS)
def test_a_fit_ends_within_three_times_its_tolerance(name, shape, scale, covariance):
    x, y = shape()
    settings = {"prior": name, "covariance": covariance, "max_iter": 2000}
    tight = LogisticRegression(scale, tol=1e-7, **settings).fit(x, y)
    loose = LogisticRegression(scale, tol=1e-4, **settings).fit(x, y)
    scales = torch.tensor([5.0] + x.shape[1] * [scale], dtype=torch.float64)
    root = torch.tensor(np.diag(loose.scale_) if covariance == "diagonal" else loose.scale_tril_)
    with torch.no_grad():
        reached = elbo(x, y, PRIORS[name](scales), torch.tensor(loose.loc_), root).item()
    assert -1e-6 < tight.elbo_ - reached < 3e-4
