"""Sensitivities are the differences between fits with other settings."""

import math

import numpy as np
import pytest

from pyro_kl.glm import LogisticRegression, ProbitRegression
from tests.glm.reference.by_gradient import optimum
from tests.glm.reference.data_sets import TABLES
from tests.glm.reference.estimators import fitted, prior_scale

STEP = 3e-3


def rates(fit):
    """How fast mean and sd of a fit change with its argument, at 0."""
    (loc, scale), (loc_behind, scale_behind) = fit(STEP), fit(-STEP)
    return (loc - loc_behind) / (2.0 * STEP), (scale - scale_behind) / (2.0 * STEP)


def assert_close(derivative, rate):
    """Differences over STEP are accurate to about its square."""
    np.testing.assert_allclose(derivative, rate, rtol=0, atol=2e-4 * np.abs(rate).max())


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize(
    ("name", "beta"), [("spector", 1.0), ("spector", 0.4), ("wine", 1.0), ("executions", 1.0)]
)
def test_are_differences_between_optima(name, beta, covariance):
    table, model = fitted(name, covariance=covariance, beta=beta, tol=1e-10)
    found = model.sensitivity(table.features, table.target)

    def at(scale_of_weights, beta):
        scale = prior_scale(table, scale_of_weights)
        loc, tril, _ = optimum(table, scale, beta, covariance == "diagonal")
        return loc, np.linalg.norm(tril, axis=-1)

    loc_rate, scale_rate = rates(lambda step: at(1.0, beta + step))
    assert_close(found.loc_by_beta, loc_rate)
    assert_close(found.scale_by_beta, scale_rate)
    loc_rate, scale_rate = rates(lambda step: at(math.exp(step), beta))
    assert_close(found.loc_by_prior_scale, loc_rate)
    assert_close(found.scale_by_prior_scale, scale_rate)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize(
    ("estimator", "prior"),
    [
        (LogisticRegression, "laplace"),
        (LogisticRegression, "studentt"),
        (LogisticRegression, "horseshoe"),
        (ProbitRegression, "normal"),
    ],
)
def test_are_differences_between_fits(estimator, prior, covariance):
    table = TABLES["spector"]()
    settings = {"prior": prior, "covariance": covariance, "tol": 1e-12}

    def fit(scale=1.0, beta=1.0):
        model = estimator(scale, beta=beta, **settings)
        return model.fit(table.features, table.target)

    def at(*arguments):
        model = fit(*arguments)
        return model.loc_, model.scale_

    found = fit().sensitivity(table.features, table.target)
    loc_rate, scale_rate = rates(lambda step: at(1.0, 1.0 + step))
    assert_close(found.loc_by_beta, loc_rate)
    assert_close(found.scale_by_beta, scale_rate)
    loc_rate, scale_rate = rates(lambda step: at(math.exp(step)))
    assert_close(found.loc_by_prior_scale, loc_rate)
    assert_close(found.scale_by_prior_scale, scale_rate)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_posterior_of_rows_of_no_weight_is_the_prior(covariance):
    rows = ([[1.0], [1.0]], [0, 1], [1e-30, 1e-30])
    model = LogisticRegression(2.0, bias_scale=4.0, covariance=covariance).fit(*rows)
    found = model.sensitivity(*rows)
    for zero in (found.loc_by_beta, found.scale_by_beta, found.loc_by_prior_scale):
        np.testing.assert_allclose(zero, 0.0, atol=1e-9)
    np.testing.assert_allclose(found.scale_by_prior_scale, [0.0, 2.0], atol=1e-8)


def test_other_classes_are_refused_and_forgotten():
    table, model = fitted("spector")
    words = np.where(table.target, "A", "below A")
    with pytest.raises(ValueError, match=r"y has the classes .*; the fit had"):
        model.sensitivity(table.features, words)
    assert model.classes_.tolist() == [0.0, 1.0]


def test_printed_is_a_table():
    table, model = fitted("spector")
    found = model.sensitivity(table.features, table.target)
    head, more, *lines = str(found).splitlines()  # the columns' names take two lines
    assert [line.split()[0] for line in lines] == ["bias", *table.names]
    assert head.split()[0] == "coefficient"
    assert f"{head.split()[-1]} {more.split()[-1]}" == "d scale"
    assert found.to_dicts()[1]["loc_by_beta"] == found.loc_by_beta[1]


def test_low_rank_posterior_is_refused():
    table, model = fitted("spector", covariance="low_rank", rank=1)
    with pytest.raises(ValueError, match="full or a diagonal posterior, and this one is LowRank"):
        model.sensitivity(table.features, table.target)
