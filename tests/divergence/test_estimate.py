"""`Estimate` as a number, as a batch and as a record."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch.distributions import Gamma, HalfCauchy, LogNormal, Normal

import pyro_kl
from pyro_kl.registry.pair import PairTable

ONE = pyro_kl.kl(Normal(0.0, 1.0), Normal(1.0, 1.0))
BATCH = pyro_kl.kl(LogNormal(torch.zeros(3), 1.0), HalfCauchy(torch.tensor([0.5, 1.0, 2.0])))
EMPTY = pyro_kl.kl(Normal(torch.zeros(0), 1.0), Normal(1.0, 1.0))


def test_as_a_number():
    assert float(ONE) == ONE.item() == 0.5
    assert f"{ONE:.3f}" == "0.500"
    assert f"{ONE}" == str(ONE)
    assert float(pyro_kl.kl(Normal(0.0, 1.0), Gamma(1.0, 1.0))) == math.inf


@pytest.mark.parametrize("batch", [BATCH, EMPTY], ids=["three", "none"])
@pytest.mark.parametrize("use", [float, lambda x: x.item(), lambda x: f"{x:.3f}"])
def test_a_batch_is_not_one_number(batch, use):
    with pytest.raises(ValueError, match=r"shape \([30],\) is not one number"):
        use(batch)


def test_a_batch_is_taken_apart():
    second = BATCH[1]
    assert (float(second), second.error) == (BATCH.value[1], BATCH.error[1])
    assert second.standard_error.shape == ()
    assert (second.method, second.reason) == (BATCH.method, BATCH.reason)
    assert BATCH[1:].value.shape == (2,)
    assert [float(x) for x in BATCH] == BATCH.value.tolist()
    assert list(EMPTY) == []
    with pytest.raises(IndexError):
        BATCH[3]
    with pytest.raises(TypeError, match="has no elements"):
        iter(ONE)
    assert "of shape (0,)" in str(EMPTY)


def test_equal_records_are_equal():
    again = pyro_kl.kl(LogNormal(torch.zeros(3), 1.0), HalfCauchy(torch.tensor([0.5, 1.0, 2.0])))
    assert again == BATCH
    assert hash(again) == hash(BATCH)
    assert BATCH != BATCH[:2]
    assert BATCH[0] != BATCH[1]
    assert BATCH != pyro_kl.kl(
        LogNormal(torch.zeros(3, dtype=torch.float64), 1.0), HalfCauchy(1.0)
    )
    assert ONE != 0.5
    assert len({ONE, BATCH, again}) == 2
    p = Normal(torch.zeros(3), 1.0)
    assert pyro_kl.bounds(p, Normal(1.0, 1.0)) == pyro_kl.bounds(p, Normal(1.0, 1.0))
    assert pyro_kl.bounds(p, Normal(1.0, 1.0)) != pyro_kl.bounds(p, Normal(2.0, 1.0))


@pytest.mark.parametrize("copied", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
def test_copies_are_equal(copied):
    for record in (ONE, BATCH, pyro_kl.compare(Normal(0.0, 1.0), Normal(1.0, 1.0), 10)):
        assert copied(record) == record


def test_pairs_are_pickled_by_name():
    # other tests and doctests register classes that have no name to be found by
    packages = {"torch", "pyro"}
    table = PairTable(
        pair
        for pair in pyro_kl.registered()
        if {side.__module__.partition(".")[0] for side in (pair.p, pair.q)} <= packages
    )
    assert len(table) > 1000
    again = pickle.loads(pickle.dumps(table))
    assert type(again) is type(table)
    assert all(a is b for a, b in zip(again, table, strict=True))
