"""The posterior of earlier data is the prior of later ones."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_kl.glm import LogisticRegression, read_table
from pyro_kl.glm.covariances.covariance import DiagonalCovariance
from tests.glm.reference.data_sets import TABLES
from tests.glm.reference.estimators import ESTIMATORS, fitted, prior_scale

TIGHT = {"tol": 1e-9, "max_iter": 500}


def off(model, whole):
    """How far means are off, in sds, and sds, relative; the worst coefficient's."""
    of_mean = np.abs((model.loc_ - whole.loc_) / whole.scale_).max()
    return of_mean, np.abs(model.scale_ / whole.scale_ - 1.0).max()


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("name", ["spector", "wine", "executions"])
def test_posterior_that_is_the_prior_itself_changes_nothing(name, covariance):
    table, model = fitted(name, covariance=covariance, tol=1e-10)
    scale = torch.tensor(prior_scale(table))
    prior = replace(
        model.posterior_, loc=torch.zeros_like(scale), covariance=DiagonalCovariance(scale)
    )
    frame = pd.DataFrame(table.features, columns=list(table.names))
    again = ESTIMATORS[table.likelihood](covariance=covariance, **TIGHT)
    again.fit(frame, table.target, prior=prior)
    np.testing.assert_allclose(again.loc_, model.loc_, rtol=0, atol=1e-4)
    np.testing.assert_allclose(again.scale_, model.scale_, rtol=1e-4)
    assert again.elbo_ == pytest.approx(model.elbo_, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "of_mean", "of_sd"),
    [("spector", 0.2, 0.1), ("vote", 0.3, 0.1), ("diabetes", 0.1, 0.1), ("doctor", 0.02, 0.01)],
)
def test_two_halves_are_the_whole_as_far_as_a_gaussian_remembers(name, of_mean, of_sd):
    table = TABLES[name]()
    x, y = table.features, table.target
    half, other = np.array_split(np.random.default_rng(0).permutation(len(y)), 2)
    yesterday = LogisticRegression(**TIGHT).fit(x[half], y[half])
    today = LogisticRegression(**TIGHT).fit(x[other], y[other], prior=yesterday.posterior_)
    whole = LogisticRegression(**TIGHT).fit(x, y)
    assert off(today, whole)[0] < of_mean
    assert off(today, whole)[1] < of_sd
    assert off(yesterday, whole)[0] > 2 * of_mean
    # log p(y) = log p(y of one half) + log p(y of the other | that half)
    assert yesterday.elbo_ + today.elbo_ == pytest.approx(whole.elbo_, abs=0.2)


def made_up(num_rows, seed):
    """Rows of a logistic regression; the coefficients are the same for every seed."""
    weights = np.random.default_rng(0).normal(size=10) / 2.0
    random = np.random.default_rng([1, seed])
    features = random.normal(size=(num_rows, 10))
    return features, random.random(num_rows) < 1.0 / (1.0 + np.exp(-features @ weights))


def test_a_small_day_after_much_data_takes_two_passes_and_one_for_the_elbo():
    yesterday = LogisticRegression().fit(*made_up(40_000, seed=0))
    x, y = made_up(1_000, seed=1)
    today = LogisticRegression().fit(x, y, prior=yesterday.posterior_)
    assert today.converged_
    assert today.n_iter_ <= 3
    exact = LogisticRegression(**TIGHT).fit(x, y, prior=yesterday.posterior_)
    assert max(off(today, exact)) < 1e-4


@pytest.mark.parametrize("before", ["full", "diagonal", "low_rank"])
@pytest.mark.parametrize("after", ["full", "diagonal", "low_rank"])
def test_any_family_follows_any_family(before, after):
    yesterday = LogisticRegression(covariance=before, rank=2).fit(*made_up(1_000, seed=0))
    x, y = made_up(300, seed=1)
    today = LogisticRegression(covariance=after, rank=2).fit(x, y, prior=yesterday.posterior_)
    assert today.converged_
    assert (np.diff(today.trace_) >= 0.0).all()
    assert (today.scale_ < 1.01 * yesterday.scale_).all()


def test_tables_that_are_standardised_in_two_ways():
    """The second day has units of its own, the data's, or by hand those of the first."""
    days = []
    for seed, (shift, scale) in enumerate([(3.0, 2.0), (2.0, 5.0)]):
        x, y = made_up(300, seed)
        columns = {f"x{j}": shift + scale * x[:, j] for j in range(3)}
        days.append(pd.DataFrame({**columns, "y": np.where(y, "yes", "no")}))
    first, second = (read_table(day, "y", standardise=True) for day in days)
    yesterday = LogisticRegression(**TIGHT).fit(first).posterior_
    raw, y = days[1].iloc[:, :3], days[1]["y"]
    features = (raw - yesterday.shift.numpy()) / yesterday.scale.numpy()
    without = replace(yesterday, shift=None, scale=None)
    by_hand = LogisticRegression(**TIGHT).fit(features, y, prior=without).posterior_
    mean, sd = by_hand.predictor(features)
    for X, y_ in [(second, None), (raw, y)]:
        today = LogisticRegression(**TIGHT).fit(X, y_, prior=yesterday).posterior_
        assert today.elbo == pytest.approx(by_hand.elbo, abs=1e-6)
        other_mean, other_sd = today.predictor(raw)
        torch.testing.assert_close(other_mean, mean, rtol=0, atol=1e-4)
        torch.testing.assert_close(other_sd, sd, rtol=3e-4, atol=0)


def test_other_names_and_other_classes_are_refused():
    table, model = fitted("spector")
    frame = pd.DataFrame(table.features, columns=list(table.names))
    words = np.where(table.target, "A", "below A")
    with pytest.raises(
        ValueError, match=r"posterior of the features GPA, TUCE, PSI, .*; the rows"
    ):
        LogisticRegression().fit(frame.iloc[:, ::-1], table.target, prior=model.posterior_)
    with pytest.raises(ValueError, match=r"posterior of the classes \(0.0, 1.0\); y has"):
        LogisticRegression().fit(frame, words, prior=model.posterior_)
