"""Every test starts from the same random numbers and an empty parameter store."""

from __future__ import annotations

import pyro
import pytest
import torch


@pytest.fixture(autouse=True)
def _seed():
    pyro.set_rng_seed(0)
    pyro.clear_param_store()


@pytest.fixture
def double():
    """torch's GeneralizedPareto mixes dtypes: with any other default its log_prob raises."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
