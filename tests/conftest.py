"""Every test starts from the same random numbers and an empty parameter store."""

from __future__ import annotations

import pyro
import pytest


@pytest.fixture(autouse=True)
def _seed():
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
