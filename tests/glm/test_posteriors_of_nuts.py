"""Posteriors on real tables against long NUTS runs."""

import numpy as np
import pytest

from tests.glm.reference.data_sets import TABLES
from tests.glm.reference.estimators import fitted, off
from tests.glm.reference.nuts import stored

STORED = stored()
#: Classes that a plane separates: the posterior is skew, and no Gaussian has its means and sds.
SEPARABLE = ("setosa", "digits")
OTHERS = [name for name in STORED if name not in SEPARABLE]


@pytest.mark.parametrize("name", STORED)
def test_chains_are_long_enough(name):
    run = STORED[name]
    assert max(run["r_hat"]) < 1.001
    assert min(run["effective_sample_size"]) > 50_000
    assert run["divergent"] == 0
    errors = np.array([run["mean_standard_error"], run["sd_standard_error"]])
    assert (errors / run["sd"]).max() < 0.01


@pytest.mark.parametrize("name", STORED)
def test_table_is_the_one_of_the_chains(name):
    table = TABLES[name]()
    assert ["bias", *table.names] == STORED[name]["names"]
    assert len(table.target) == STORED[name]["rows"]


@pytest.mark.parametrize("name", OTHERS)
def test_full_posterior(name):
    _, model = fitted(name)
    of_mean, of_sd = off(name, model.loc_, model.scale_)
    assert of_mean < 0.1
    assert of_sd < 0.1


@pytest.mark.parametrize("name", SEPARABLE)
def test_posterior_of_separable_classes_is_no_gaussian(name):
    """The fit is at the optimum: `test_fixed_point_is_the_optimum`. The family is too small."""
    _, model = fitted(name)
    of_mean, of_sd = off(name, model.loc_, model.scale_)
    assert of_mean < 0.15
    assert 0.1 < of_sd < 0.2


@pytest.mark.parametrize("name", OTHERS)
def test_linear_response_of_diagonal_posterior(name):
    table, model = fitted(name, covariance="diagonal")
    covariance = model.linear_response_covariance(table.features, table.target)
    _, of_sd = off(name, model.loc_, np.sqrt(covariance.diagonal()))
    assert of_sd < 0.05
