"""Linear response is the rate of the posterior mean when the log posterior is tilted."""

import numpy as np
import pandas as pd
import pytest

from pyro_kl.glm import LogisticRegression, read_table
from tests.glm.reference.by_gradient import optimum
from tests.glm.reference.estimators import fitted, prior_scale


@pytest.mark.parametrize(
    ("name", "beta"), [("spector", 1.0), ("spector", 0.4), ("vote", 1.0), ("executions", 1.0)]
)
def test_is_the_rate_of_a_tilt(name, beta):
    table, model = fitted(name, covariance="diagonal", beta=beta)
    covariance = model.linear_response_covariance(table.features, table.target)
    np.testing.assert_allclose(covariance, covariance.T, rtol=0, atol=1e-12)
    for j, variance in enumerate(covariance.diagonal()):
        step = 1e-2 / np.sqrt(variance)
        tilt = np.eye(len(covariance))[j] * step
        ahead, behind = (
            # the log posterior is the sum of log likelihoods over beta, and of the log prior
            optimum(table, prior_scale(table), beta, True, tilt=beta * sign * tilt)[0]
            for sign in (1, -1)
        )
        rate = (ahead - behind) / (2.0 * step)
        np.testing.assert_allclose(covariance[j], rate, rtol=0, atol=1e-4 * variance)


def test_weights_repeat_rows_and_float32_and_sparse_rows_are_accepted():
    from scipy import sparse

    table, _ = fitted("vote")
    count = 1 + np.arange(len(table.target)) % 2
    model = LogisticRegression(covariance="diagonal", tol=1e-10)
    x, y = table.features, table.target
    model.fit(x, y, sample_weight=count)
    weighted = model.linear_response_covariance(x, y, sample_weight=count)
    repeated = model.linear_response_covariance(np.repeat(x, count, 0), np.repeat(y, count))
    in_sparse = model.linear_response_covariance(sparse.csr_matrix(x), y, sample_weight=count)
    in_single = model.linear_response_covariance(x.astype("float32"), y, sample_weight=count)
    np.testing.assert_allclose(repeated, weighted, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(in_sparse, weighted, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(in_single, weighted, rtol=1e-4, atol=1e-7)


def test_rows_of_a_table_are_accepted():
    table, model = fitted("spector", covariance="diagonal")
    frame = pd.DataFrame(table.features, columns=list(table.names))
    rows = read_table(frame.assign(grade=table.target), "grade")
    np.testing.assert_allclose(
        model.linear_response_covariance(rows),
        model.linear_response_covariance(frame, table.target),
        rtol=1e-12,
    )


def test_correlations_of_an_earlier_posterior_count():
    table, _ = fitted("breast_cancer_means")
    x, y = table.features, table.target
    yesterday = LogisticRegression().fit(x[:300], y[:300]).posterior_
    full = LogisticRegression(tol=1e-9).fit(x[300:], y[300:], prior=yesterday)
    model = LogisticRegression(covariance="diagonal", tol=1e-9, max_iter=500)
    model.fit(x[300:], y[300:], prior=yesterday)
    covariance = model.linear_response_covariance(x[300:], y[300:])
    np.testing.assert_allclose(np.sqrt(covariance.diagonal()), full.scale_, rtol=0.05)
    assert (model.scale_ / full.scale_).min() < 0.5


def test_full_posterior_is_refused():
    table, model = fitted("spector")
    with pytest.raises(ValueError, match="is for a diagonal posterior, and this one is FullCov"):
        model.linear_response_covariance(table.features, table.target)


def test_columns_of_another_table_are_refused():
    table, model = fitted("spector", covariance="diagonal")
    with pytest.raises(ValueError, match="X has 2 features, but LogisticRegression was fitted"):
        model.linear_response_covariance(table.features[:, :2], table.target)
