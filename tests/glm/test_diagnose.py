"""KL(fit || posterior) of a regression, against a grid of both coefficients."""

from __future__ import annotations

import numpy as np
import pyro
import pytest
import torch

import pyro_kl
from pyro_kl.glm import LogisticRegression

X = np.linspace(-2.0, 2.0, 40)[:, None]
Y = np.array(["no", "yes"])[(X[:, 0] + np.sin(9.0 * X[:, 0]) > 0.2).astype(int)]


@pytest.fixture(scope="module")
def fit():
    return LogisticRegression(tol=1e-8).fit(X, Y)


def log_evidence(x, y):
    """By a grid of bias and weight; the default prior."""
    bias = torch.linspace(-12, 12, 301).double()[:, None]
    weight = torch.linspace(-6, 10, 301).double()
    normal = torch.distributions.Normal
    logs = normal(0.0, 5.0).log_prob(bias) + normal(0.0, 1.0).log_prob(weight)
    for value, sign in zip(x[:, 0], np.where(y == "yes", 1.0, -1.0), strict=True):
        logs = logs + torch.nn.functional.logsigmoid(sign * (bias + weight * value))
    return float(logs.flatten().logsumexp(0)) + np.log(24 / 300 * 16 / 300)


def test_the_kl_to_the_posterior_is_that_of_a_grid(fit):
    pyro.set_rng_seed(0)
    found = fit.diagnose(X, Y)
    error = float(found.kl_posterior.standard_error)
    assert abs(float(found.kl_posterior) - (log_evidence(X, Y) - fit.elbo_)) < 4 * error < 0.01
    assert str(found).endswith(found.summary)


def test_rows_that_are_not_those_of_the_fit_are_refused(fit):
    with pytest.raises(ValueError, match="not the rows of the fit"):
        fit.diagnose(X[:30], Y[:30])
    weighed = LogisticRegression().fit(X, Y, sample_weight=np.full(len(X), 2.0))
    with pytest.raises(ValueError, match="not the rows of the fit, or it gave them weights"):
        weighed.diagnose(X, Y)


def test_a_tempered_fit_and_sparse_rows_are_refused(fit):
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(ValueError, match="its target is not the posterior"):
        LogisticRegression(beta=0.5).fit(X, Y).diagnose(X, Y)
    with pytest.raises(ValueError, match="dense"):
        fit.diagnose(sparse.csr_matrix(X), Y)


def test_a_table_s_rows_are_taken_in_its_own_units(tmp_path):
    path = tmp_path / "table.csv"
    lines = [f"{100 + 7 * x:.6f},{y}" for x, y in zip(X[:, 0], Y, strict=True)]
    path.write_text("x,label\n" + "\n".join(lines) + "\n")
    rows = pyro_kl.glm.read_table(path, "label")
    found = LogisticRegression().fit(rows).diagnose(rows, num_samples=1_000)
    assert found.known
