"""Checkpoints of a fit: it goes on from the sums in a folder, and refuses those of another fit."""

import os

import numpy as np
import pytest
import torch

from pyro_kl.glm.logistic import LogisticRegression
from pyro_kl.glm.passes import checkpoint
from pyro_kl.glm.passes import rows as chunks
from pyro_kl.glm.poisson import PoissonRegression


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1024)
    monkeypatch.setattr(chunks, "LEAST_ROWS", 1)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 3, generator=generator, dtype=torch.float64)
    return x, torch.poisson(x.sum(-1).mul(0.3).exp(), generator=generator)


class Stopped(Exception):
    pass


class Stopping(chunks.ArrayRows):
    """Rows that cannot be read any more after some chunks."""

    left = 0

    def chunk(self, index):
        self.left -= 1
        if self.left < 0:
            raise Stopped
        return super().chunk(index)


def test_a_fit_goes_on_wherever_it_was_stopped(table, tmp_path):
    whole = PoissonRegression().fit(*table)
    rows, stops = Stopping(*table), 0
    while True:
        rows.left = 40
        try:
            fitted = PoissonRegression().fit(rows, checkpoint=tmp_path)
            break
        except Stopped:
            stops += 1
    assert stops > 5
    np.testing.assert_allclose(fitted.loc_, whole.loc_, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(fitted.scale_tril_, whole.scale_tril_, rtol=1e-12, atol=1e-12)
    assert fitted.elbo_ == whole.elbo_
    np.testing.assert_allclose(fitted.trace_, whole.trace_, rtol=1e-12, atol=1e-12)
    assert not [path for path in os.listdir(tmp_path) if "block" in path or "part" in path]
    rows.left = 10
    again = PoissonRegression().fit(rows, checkpoint=tmp_path)
    np.testing.assert_allclose(again.loc_, whole.loc_, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wait", [0.0, 1e9])
def test_the_sums_of_a_pass_are_kept_by_blocks(wait, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "WAIT", wait)
    computed = []

    def value(index):
        computed.append(index)
        if len(computed) == 50:
            raise Stopped
        return torch.tensor([1.0 + index])

    for stops in range(3):
        try:
            total = checkpoint.Journal(tmp_path, {}).sum_of_chunks(100, value)
        except Stopped:
            assert stops == 0
    assert total == sum(range(1, 101))
    # the first write tells how long a write takes: it does not wait
    again = [49] if wait == 0 else range(1, 50)
    assert sorted(computed) == sorted([*range(100), *again])


def test_blocks_with_chunks_in_common_are_used_once(tmp_path):
    def journal():
        return checkpoint.Journal(tmp_path, {})

    for chunks_of_block in (range(8), range(4, 10), range(12, 14)):
        sums = checkpoint.PartialSums()
        for index in chunks_of_block:
            sums.add(index, torch.tensor([1.0]))
        other = journal()
        other._pass = 1
        other._write_block(chunks_of_block, sums)
    computed = []

    def value(index):
        computed.append(index)
        return torch.tensor([1.0])

    assert journal().sum_of_chunks(16, value) == 16
    assert computed == [8, 9, 10, 11, 14, 15]


OTHERS = {
    "prior": (lambda x, y: (x, y), {"prior_scale": 2.0}),
    "covariance": (lambda x, y: (x, y), {"covariance": "diagonal"}),
    "tol": (lambda x, y: (x, y), {"tol": 1e-6}),
    "first rows": (lambda x, y: (x + (torch.arange(len(x)) == 0).unsqueeze(-1), y), {}),
    "last rows": (lambda x, y: (x, y + (torch.arange(len(y)) == len(y) - 1)), {}),
    "number of chunks": (lambda x, y: (x[:1000], y[:1000]), {}),
    "dtype": (lambda x, y: (x.float(), y), {}),
    "columns": (lambda x, y: (x[:, :2], y), {}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_sums_of_another_fit_are_refused(name, table, tmp_path):
    PoissonRegression().fit(*table, checkpoint=tmp_path)
    change, parameters = OTHERS[name]
    with pytest.raises(ValueError, match=f"is of another fit: {name} .* there, .* here") as error:
        PoissonRegression(**parameters).fit(*change(*table), checkpoint=tmp_path)
    assert "\n" not in str(error.value)


def test_the_sums_of_another_likelihood_are_refused(table, tmp_path):
    x, y = table
    PoissonRegression().fit(x, (y > 0).double(), checkpoint=tmp_path)
    with pytest.raises(ValueError, match="another fit: likelihood poisson there, bernoulli"):
        LogisticRegression().fit(x, y > 0, checkpoint=tmp_path)


def test_a_posterior_as_prior_is_part_of_the_fit(table, tmp_path):
    first, second = (
        PoissonRegression(prior_scale=scale).fit(*table).posterior_ for scale in (1.0, 2.0)
    )
    PoissonRegression().fit(*table, prior=first, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="is of another fit: prior GaussianPrior"):
        PoissonRegression().fit(*table, prior=second, checkpoint=tmp_path)
