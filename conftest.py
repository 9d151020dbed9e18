"""What doctests find in their namespace."""

import pyro
import pytest
import torch

import pyro_kl


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace.update(torch=torch, pyro=pyro, pyro_kl=pyro_kl)
    pyro.set_rng_seed(0)
