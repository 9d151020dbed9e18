"""The tail of the weights: the numbers of ArviZ, and what a fit of known tails finds."""

import inspect
import math
import warnings

import pytest
import torch

from pyro_kl.diagnosis import pareto

COUNTS = (5, 20, 21, 25, 100, 999, 10_000)
WEIGHTS = {
    "normal": torch.randn,
    "heavy": lambda n: -1.5 * torch.rand(n).log(),
    "bounded": lambda n: -100 * torch.rand(n),
    "one takes all": lambda n: 500 * torch.randn(n),
    "ties": lambda n: torch.randint(0, 5, (n,)).float(),
    "excluded draws": lambda n: torch.randn(n).masked_fill(torch.rand(n) < 0.3, -math.inf),
    "far from 1": lambda n: torch.randn(n) - 1234.0,
}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("count", COUNTS)
def test_the_numbers_are_those_of_arviz(count, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arviz = pytest.importorskip("arviz")
        psislw = getattr(arviz, "psislw", None)
        if psislw is None or "normalize" not in inspect.signature(psislw).parameters:
            pytest.skip("ArviZ 1.x has it elsewhere, and old ones normalise the weights")
    logs = WEIGHTS[name](count).double()
    weights, khat = psislw(logs.numpy().copy(), normalize=False)
    found = pareto.smooth(logs)
    assert found.shape == pytest.approx(float(khat), abs=1e-10)
    # equal weights may be smoothed in any order
    own = found.log_weights(logs).sort().values.numpy()
    assert own == pytest.approx(sorted(weights), abs=1e-10)


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.3, 0.7, 1.2])
def test_the_shape_of_known_tails(shape):
    exponential = -torch.rand(40, 2000, dtype=torch.float64).log()
    excesses = exponential if shape == 0 else (shape * exponential).expm1() / shape
    found, scale = pareto.fit(excesses.sort(-1).values)
    # sd of a shape by maximum likelihood: (1 + shape) / sqrt(observations)
    error = (1 + shape) / math.sqrt(2000 * 40)
    assert float(found.mean()) == pytest.approx(shape, abs=4 * error + 10 / 2000)
    assert float(scale.mean()) == pytest.approx(1, abs=0.05)


def test_few_draws_have_no_tail():
    assert pareto.smooth(torch.randn(20).double()).shape == math.inf
    assert pareto.threshold(10) == -math.inf
    assert pareto.threshold(10_000) == 0.7
    assert pareto.threshold(100) == 0.5
    assert pareto.enough_draws(0.5) == 100


@pytest.mark.parametrize("shape", [-1.0, 0.0, 0.2, 0.4999999999, 0.5, 0.5000000001, 0.69, 0.99])
def test_the_error_grows_with_the_shape(shape):
    factor = pareto.error_factor(shape, 10_000)
    assert 1 <= factor <= 100
    assert factor <= pareto.error_factor(shape + 0.01, 10_000)


def test_the_error_factor_is_continuous_at_one_half():
    below, at, above = (pareto.error_factor(0.5 + d, 10_000) for d in (-2e-6, 0.0, 2e-6))
    assert below == pytest.approx(at, rel=1e-4)
    assert above == pytest.approx(at, rel=1e-4)
