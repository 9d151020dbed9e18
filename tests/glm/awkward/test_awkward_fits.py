"""Awkward data are fitted, or refused with one clear line; no accepted step lowers the ELBO."""

from contextlib import nullcontext

import numpy as np
import pytest

from pyro_kl.glm import LogisticRegression, read_table
from pyro_kl.glm.arrays import as_features

from .arrays import ARRAYS
from .files import TABLES


def check(model, converges=True):
    """All results are finite, and each accepted step raised the ELBO."""
    assert bool((np.diff(model.trace_) >= 0.0).all())
    assert model.converged_ == converges
    for value in (model.loc_, model.scale_, model.elbo_, model.expected_log_likelihood_):
        assert bool(np.isfinite(value).all())
    assert bool((model.scale_ > 0.0).all())
    assert model.kl_ > 0.0
    assert model.elbo_ >= model.trace_[-1]


def fit(case, **parameters):
    return LogisticRegression(**parameters).fit(case.features, case.target, case.weight)


@pytest.mark.parametrize("covariance", ["full", "diagonal", "low_rank"])
@pytest.mark.parametrize("name", [name for name, case in ARRAYS.items() if case.error is None])
def test_awkward_arrays_are_fitted(name, covariance):
    if name.startswith("sparse") and covariance != "diagonal":
        pytest.skip("a sparse matrix has a diagonal covariance")
    case = ARRAYS[name]
    told = pytest.warns(UserWarning, match="The fit stopped after 100 passes")
    with nullcontext() if case.converges else told:
        model = fit(case, covariance=covariance, rank=2)
    check(model, case.converges)


@pytest.mark.parametrize("prior", ["laplace", "studentt", "horseshoe"])
@pytest.mark.parametrize(
    "name",
    ["separable", "collinear", "more columns than rows", "scales from 1e-8 to 1e8", "float32"],
)
def test_awkward_arrays_are_fitted_with_every_prior(name, prior):
    check(fit(ARRAYS[name], prior=prior, max_iter=2000))


@pytest.mark.parametrize("name", [name for name, case in ARRAYS.items() if case.error is not None])
def test_arrays_that_cannot_be_fitted_get_one_line(name):
    with pytest.raises(ValueError, match=ARRAYS[name].error) as raised:
        fit(ARRAYS[name])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [name for name, case in TABLES.items() if case.names])
def test_awkward_tables_are_fitted(name, tmp_path):
    case = TABLES[name]
    options = {"target": "y", "standardise": True, **case.options}
    rows = read_table(case.make(tmp_path), **options)
    model = LogisticRegression().fit(rows)
    check(model)
    assert tuple(model.feature_names_in_) == case.names
    assert tuple(model.classes_) == rows.target.classes


def test_a_file_that_is_mapped_into_memory_is_not_copied(tmp_path):
    case = ARRAYS["integers"]
    np.save(tmp_path / "x.npy", case.features.astype(float))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert as_features(mapped)[0].data_ptr() == mapped.ctypes.data
    model = LogisticRegression().fit(mapped, case.target)
    assert model.elbo_ == fit(case).elbo_
