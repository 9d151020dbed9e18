"""Bounds hold, against quadrature and enumeration; stratified estimates are unbiased."""

from __future__ import annotations

import itertools

import pyro.distributions as dist
import pytest
import torch
from torch.autograd import gradcheck

import pyro_kl
from pyro_kl.divergence.monte_carlo import stratified

F64 = torch.float64


def mixture(components, spread=3.0):
    weights = dist.Categorical(logits=torch.randn(components, dtype=F64))
    scale = torch.randn(components, dtype=F64).exp()
    return dist.MixtureSameFamily(
        weights, dist.Normal(spread * torch.randn(components, dtype=F64), scale)
    )


def by_grid(p, q):
    x = torch.linspace(-90, 90, 400_001, dtype=F64)
    log_p = p.log_prob(x)
    return (log_p.exp() * (log_p - q.log_prob(x))).sum() * (x[1] - x[0])


@pytest.mark.parametrize("seed", range(10))
def test_mixtures(seed):
    torch.manual_seed(seed)
    p, q = (mixture(int(k)) for k in torch.randint(1, 5, (2,)))
    found, truth = pyro_kl.bounds(p, q), by_grid(p, q)
    assert found.lower <= truth + 1e-9
    assert truth - 1e-9 <= found.upper
    estimate = stratified(p, q, 5000)
    assert (estimate.value - truth).abs() < 4.5 * estimate.standard_error + 1e-9


def test_of_itself_is_zero():
    torch.manual_seed(0)
    p = mixture(3)
    found = pyro_kl.bounds(p, p)
    assert found.lower.abs() < 1e-12
    assert found.upper.abs() < 1e-12


@pytest.mark.parametrize("sizes", [(2, 2, 4, 3), (3, 2, 4, 2), (3, 3, 4, 2)])
def test_hidden_markov_models(sizes):
    left, right, steps, symbols = sizes
    torch.manual_seed(0)

    def distribution(states):
        seen = dist.Categorical(logits=2 * torch.randn(states, symbols, dtype=F64))
        moves = 2 * torch.randn(steps, states, states, dtype=F64)
        return dist.DiscreteHMM(2 * torch.randn(states, dtype=F64), moves, seen)

    every = torch.tensor(list(itertools.product(range(symbols), repeat=steps)))
    for _ in range(10):
        p, q = distribution(left), distribution(right)
        log_p, log_q = p.log_prob(every), q.log_prob(every)
        truth = (log_p.exp() * (log_p - log_q)).sum()
        found = pyro_kl.bounds(p, q)
        assert found.lower - 1e-9 <= truth <= found.upper + 1e-9
        assert pyro_kl.bounds(p, p).upper < 1e-9


def test_names_of_hidden_states_do_not_matter():
    torch.manual_seed(0)
    start, moves = torch.randn(3, dtype=F64), torch.randn(4, 3, 3, dtype=F64)
    seen = 5 * torch.randn(3, 4, dtype=F64)
    other = torch.tensor([2, 0, 1])
    p = dist.DiscreteHMM(start, moves, dist.Categorical(logits=seen))
    q = dist.DiscreteHMM(
        start[other], moves[:, other][:, :, other], dist.Categorical(logits=seen[other])
    )
    assert pyro_kl.bounds(p, q).upper < 0.1


def test_multivariate_mixtures():
    torch.manual_seed(0)
    distributions = [
        dist.MixtureOfDiagNormals(
            torch.randn(2, 3, 4), torch.rand(2, 3, 4) + 0.3, torch.randn(2, 3)
        )
        for _ in range(2)
    ]
    with pytest.raises(NotImplementedError, match=r"num_samples.*pyro_kl.bounds"):
        pyro_kl.kl(*distributions)
    with pytest.warns(UserWarning, match="Monte Carlo"):
        estimate = pyro_kl.kl(*distributions, num_samples=20_000)
    assert estimate.method == "monte carlo (stratified)"
    found = pyro_kl.bounds(*distributions)
    assert found.upper.shape == (2,)
    assert (found.lower <= estimate.value).all()
    assert (estimate.value <= found.upper).all()
    alone = [  # Pyro's log_prob of a batch takes no samples
        dist.MixtureOfDiagNormals(x.locs[0], x.coord_scale[0], x.component_logits[0])
        for x in distributions
    ]
    plain = pyro_kl.monte_carlo(*alone, num_samples=20_000)
    assert estimate.standard_error[0] < plain.standard_error
    assert (estimate.value[0] - plain.value).abs() < 5 * plain.standard_error


def test_gradients():
    torch.manual_seed(0)
    logits = dist.Categorical(logits=torch.zeros(2, dtype=F64))
    q = dist.MixtureSameFamily(logits, dist.Normal(torch.tensor([-1.0, 2.0]).double(), 1.0))

    def upper(loc):
        return pyro_kl.bounds(dist.MixtureSameFamily(logits, dist.Normal(loc, 1.0)), q).upper

    assert gradcheck(upper, torch.tensor([-2.0, 1.0]).double().requires_grad_(), atol=1e-4)


def test_exact_where_there_is_a_formula():
    found = pyro_kl.bounds(dist.Normal(1.0, 1.0), dist.Normal(0.0, 1.0))
    assert found.lower == found.upper == 0.5


def test_narrow_components_are_not_missed():
    """Spikes of 1e-3 in q, of 1e-4 in p: every component has nodes of its own."""

    def distribution(locs, scales):
        weights = dist.Categorical(logits=torch.zeros(len(locs), dtype=F64))
        return dist.MixtureSameFamily(
            weights, dist.Normal(torch.tensor(locs).double(), torch.tensor(scales).double())
        )

    p, q = distribution([0.0, 5.0], [1.0, 1e-4]), distribution([0.0, -3.0], [3.0, 1e-3])
    found = pyro_kl.kl(p, q)
    assert found.method == "quadrature"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sampled = stratified(p, q, 400_000)
    assert (found.value - sampled.value).abs() < 4 * sampled.standard_error
