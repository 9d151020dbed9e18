"""Features and targets of unusual types are used as they are meant, or refused with one line."""

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_kl.glm import LogisticRegression

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2))
Y = RNG.random(40) < 1 / (1 + np.exp(-X[:, 0]))


@pytest.mark.parametrize(
    "y",
    [
        pd.Series([None, *Y[1:]], dtype="boolean"),
        pd.Series([None, *np.where(Y, "b", "a")[1:]], dtype="string"),
        np.array([None, *Y[1:]], dtype=object),
    ],
)
def test_missing_targets_are_refused(y):
    with pytest.raises(ValueError, match="missing"):
        LogisticRegression().fit(X, y)


def test_targets_of_two_types_are_refused():
    with pytest.raises(ValueError, match="different types"):
        LogisticRegression().fit(X, np.array(["a", 1] * 20, dtype=object))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ma.masked_greater(X, 1.0), "masked"),
        (torch.tensor(X).to_sparse(), "sparse tensor"),
        (X.astype(complex), "complex"),
    ],
)
def test_features_that_cannot_be_used(x, message):
    with pytest.raises(ValueError, match=message):
        LogisticRegression().fit(x, Y)


def test_tensors_with_gradients_integers_and_long_doubles():
    fitted = LogisticRegression().fit(X, Y)
    target = torch.tensor(Y, dtype=torch.float64, requires_grad=True)
    again = LogisticRegression().fit(torch.tensor(X, requires_grad=True), target)
    np.testing.assert_allclose(again.loc_, fitted.loc_)
    again = LogisticRegression().fit(X.astype(np.longdouble), Y)
    np.testing.assert_allclose(again.loc_, fitted.loc_)
    ones = fitted.predict_proba(torch.ones(1, 2, dtype=torch.int64))
    np.testing.assert_allclose(ones, fitted.predict_proba(np.ones((1, 2))))


def test_an_estimator_that_is_not_fitted_says_so():
    with pytest.raises(ValueError, match="not fitted"):
        LogisticRegression().predict(X)


def test_prior_scales_of_an_array_are_printed():
    assert "prior_scale=array" in repr(LogisticRegression(prior_scale=np.ones(2)))


@pytest.mark.parametrize("prior", ["laplace", LogisticRegression()])
def test_a_prior_that_is_no_posterior(prior):
    with pytest.raises(ValueError, match="prior must be a posterior"):
        LogisticRegression().fit(X, Y, prior=prior)
