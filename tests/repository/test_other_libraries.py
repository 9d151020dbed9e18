"""Another library that registers in torch's table, before or after pyro_kl, changes no value.

GPyTorch registers (MultivariateNormal, MultivariateNormal) of its own subclass of torch's, which
its MultitaskMultivariateNormal inherits, and (Delta, MultivariateNormal) with Pyro's Delta where
Pyro is installed. A stub does the same.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

STUB = """
import torch
from torch.distributions import Distribution, MultivariateNormal as TorchNormal, register_kl
from torch.distributions import kl_divergence, Distribution as TorchDistribution
from pyro.distributions import Delta

class GDistribution(TorchDistribution):
    pass

class GNormal(TorchNormal, GDistribution):
    pass

class GMultitask(GNormal):
    pass

@register_kl(GNormal, GNormal)
def kl_mvn_mvn(p, q):
    return torch.tensor(42.0)

@register_kl(Delta, GNormal)
def kl_delta_mvn(p, q):
    return torch.tensor(43.0)
"""
ASK = """
import warnings
warnings.simplefilter("error")
import pyro.distributions as dist
eye = torch.eye(2)
a, b = (dist.MultivariateNormal(torch.tensor(m), scale_tril=s * eye)
        for m, s in (([0.0, 1.0], 1.0), ([1.0, 0.0], 2.0)))
g, h = GNormal(a.loc, scale_tril=a.scale_tril), GMultitask(b.loc, scale_tril=b.scale_tril)
product = dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1)
delta = dist.Delta(torch.zeros(2), event_dim=1)
pairs = [(a, b), (g, h), (g, b), (a, h), (g, product), (product, g), (a, product), (delta, g),
         (delta, a)]
print([round(float(kl_divergence(p, q)), 5) for p, q in pairs])
"""


def answers(order: str) -> str:
    first, second = (STUB, "import pyro_kl") if order == "stub first" else ("import pyro_kl", STUB)
    return run("\n".join([first, second, ASK]))


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def without_stub() -> str:
    plain = """
import torch, pyro_kl
from torch.distributions import MultivariateNormal, kl_divergence
GNormal = GMultitask = MultivariateNormal
"""
    return run(plain + ASK)


@pytest.fixture(scope="module")
def both():
    return answers("stub first"), answers("pyro_kl first")


def test_order_of_import_changes_nothing(both):
    assert both[0] == both[1]


def test_each_keeps_its_own(both):
    values = eval(both[0])
    assert values[1] == 42.0
    assert values[7] == 43.0
    expected = eval(without_stub())
    assert [values[i] for i in (0, 2, 3, 4, 5, 6, 8)] == [
        expected[i] for i in (0, 2, 3, 4, 5, 6, 8)
    ]
