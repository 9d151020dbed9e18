"""Estimators inside of scikit-learn's tools."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from pyro_kl.glm import LogisticRegression, PoissonRegression

DATA = load_breast_cancer()


def test_cross_validation_of_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    assert (cross_val_score(pipeline, DATA.data, DATA.target, cv=3) > 0.95).all()


def test_a_search_for_the_prior_scale_by_held_out_probabilities():
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()),
        {"logisticregression__prior_scale": [1e-3, 1.0]},
        scoring="neg_log_loss",
        cv=3,
    )
    search.fit(DATA.data, DATA.target)
    assert search.best_params_ == {"logisticregression__prior_scale": 1.0}


def test_a_clone_has_the_parameters_and_no_fit():
    fitted = LogisticRegression(2.0, prior="laplace").fit(DATA.data[:, :2], DATA.target)
    check_is_fitted(fitted)
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        check_is_fitted(copy)


def test_folds_of_a_classifier_are_stratified():
    """scikit-learn knows by the tags that this is a classifier: no fold has one class alone."""
    order = np.argsort(DATA.target, kind="stable")
    x, y = StandardScaler().fit_transform(DATA.data)[order], DATA.target[order]
    assert np.isfinite(cross_val_score(LogisticRegression(), x, y, cv=5)).all()


def test_regression_of_counts_is_a_regressor():
    x = DATA.data[:, :1] / 10.0
    counts = np.random.default_rng(0).poisson(np.exp(x[:, 0]))
    assert cross_val_score(PoissonRegression(), x, counts, cv=3).mean() > 0.1


def test_a_fit_survives_a_pickle():
    fitted = LogisticRegression().fit(DATA.data[:, :2], DATA.target)
    again = pickle.loads(pickle.dumps(fitted))
    probabilities = fitted.predict_proba(DATA.data[:, :2])
    np.testing.assert_array_equal(again.predict_proba(DATA.data[:, :2]), probabilities)
