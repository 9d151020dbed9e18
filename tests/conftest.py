"""Every test starts from the same random numbers and an empty parameter store."""

from __future__ import annotations

import pyro
import pytest
import torch
from torch.distributions import kl as torch_kl

from pyro_kl.registry import register as registry
from pyro_kl.registry import warnings as issued

#: Read by type checkers (tests/release/typed.py), not run.
collect_ignore = ["release/public_api.py"]


@pytest.fixture(autouse=True)
def _seed():
    pyro.set_rng_seed(0)
    pyro.clear_param_store()


@pytest.fixture
def nothing_warned(monkeypatch):
    """Every warning that is issued once is still to come."""
    monkeypatch.setattr(issued, "_warned", set())


@pytest.fixture
def registries_as_they_were():
    """What a test registers is forgotten, in our tables and in torch's."""
    tables = (registry._FAMILIES, registry._PAIRS, registry._KERNELS, torch_kl._KL_REGISTRY)
    before = [dict(table) for table in tables]
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)
    torch_kl._KL_MEMOIZE.clear()


@pytest.fixture
def double():
    """torch's GeneralizedPareto mixes dtypes: with any other default its log_prob raises."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
