"""The fixed point is the optimum that L-BFGS and autograd find."""

import math

import numpy as np
import pytest

from tests.glm.reference.by_gradient import optimum
from tests.glm.reference.estimators import fitted, prior_scale

SMALL = ("spector", "iris", "setosa", "vote", "wine", "breast_cancer", "executions")


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("name", SMALL)
def test_fixed_point_is_the_optimum(name, covariance, beta):
    table, model = fitted(name, covariance=covariance, beta=beta)
    loc, tril, elbo = optimum(table, prior_scale(table), beta, covariance == "diagonal")
    scale = np.linalg.norm(tril, axis=-1)
    np.testing.assert_allclose(model.loc_ / scale, loc / scale, rtol=0, atol=1e-3)
    np.testing.assert_allclose(model.scale_, scale, rtol=1e-3)
    if table.likelihood == "poisson":
        elbo -= sum(math.lgamma(count + 1.0) for count in table.target)
    assert model.elbo_ == pytest.approx(elbo, rel=0, abs=1e-5)


def test_low_rank_is_between_diagonal_and_full():
    elbos = [
        fitted("wine", covariance=covariance, rank=3)[1].elbo_
        for covariance in ("diagonal", "low_rank", "full")
    ]
    assert elbos == sorted(elbos)
    assert elbos[0] + 0.1 < elbos[1] < elbos[2] - 1e-4
