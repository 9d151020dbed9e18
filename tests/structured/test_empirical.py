"""Empirical distributions: equal atoms are one, in a batch and with event dimensions too."""

from __future__ import annotations

import math
from collections import Counter

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

F64 = torch.float64


def t(x):
    return torch.tensor(x, dtype=F64)


def by_hand(samples, log_weights, log_q):
    """The definition, atom by atom."""
    weights, total = Counter(), sum(math.exp(w) for w in log_weights)
    for x, w in zip(samples, log_weights, strict=True):
        weights[x] += math.exp(w) / total
    return sum(w * (math.log(w) - log_q(x)) for x, w in weights.items() if w)


DISTRIBUTIONS = [
    dist.Poisson(t(2.0)),
    dist.Binomial(5, t(0.3)),
    dist.Categorical(logits=t([0.0, 1.0, 2.0, -1.0, 0.5])),
    dist.NegativeBinomial(t(2.5), t(0.4)),
    dist.ZeroInflatedPoisson(t(2.0), gate=t(0.25)),
    dist.BetaBinomial(t(2.0), t(3.0), 6),
]


@pytest.mark.parametrize("q", DISTRIBUTIONS, ids=lambda q: type(q).__name__)
def test_against_counts(q):
    samples, log_weights = [3.0, 0.0, 1.0, 3.0, 0.0, 4.0], [0.1, -1.0, 0.5, 2.0, 0.0, -3.0]
    kl = kl_divergence(dist.Empirical(t(samples), t(log_weights)), q)
    assert kl.item() == pytest.approx(
        by_hand(samples, log_weights, lambda x: q.log_prob(t(x)).item()), rel=1e-12
    )
    for outside in (-1.0, 0.5):
        assert kl_divergence(dist.Empirical(t([1.0, outside]), t([0.0, 0.0])), q) == math.inf


def test_batches_broadcast():
    torch.manual_seed(0)
    samples = torch.randint(0, 4, (3, 1, 7)).to(F64)
    log_weights = torch.randn(3, 1, 7, dtype=F64)
    p, rate = dist.Empirical(samples, log_weights), t([1.0, 2.0])
    kl = kl_divergence(p, dist.Poisson(rate))
    assert kl.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            alone = dist.Empirical(samples[i, 0], log_weights[i, 0])
            assert torch.allclose(kl[i, j], kl_divergence(alone, dist.Poisson(rate[j])))
    q = dist.Empirical(torch.arange(4.0, dtype=F64).expand(2, 4), torch.zeros(2, 4, dtype=F64))
    assert kl_divergence(p, q).shape == (3, 2)
    assert torch.allclose(kl_divergence(p, p), torch.zeros(3, 1, dtype=F64), atol=1e-15)


def test_events():
    rows = t([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    p = dist.Empirical(rows, t([0.0, 1.0, 2.0]))
    log_weights = [0.0, 1.0, 2.0]
    probs = t([0.25, 0.5])
    q = dist.Bernoulli(probs).to_event(1)
    right = by_hand([0, 1, 0], log_weights, lambda i: q.log_prob(rows[i]).item())
    assert kl_divergence(p, q).item() == pytest.approx(right, rel=1e-12)
    one_hot = dist.OneHotCategorical(probs=t([0.25, 0.75]))
    right = by_hand([0, 1, 0], log_weights, lambda i: one_hot.log_prob(rows[i]).item())
    assert kl_divergence(p, one_hot).item() == pytest.approx(right, rel=1e-12)
    batch = dist.Bernoulli(torch.stack([probs, probs])).to_event(1)
    assert kl_divergence(p, batch).shape == (2,)
    assert kl_divergence(p, dist.Normal(t([0.0, 0.0]), 1.0).to_event(1)) == math.inf
    with pytest.raises(ValueError, match="event shapes"):
        kl_divergence(p, dist.Normal(0.0, 1.0))


def test_close_distributions_keep_their_digits():
    samples, log_weights = t([1.0, 2.0, 2.0]), t([0.0, 0.3, -1.0])
    moved = log_weights + t([1e-7, 0.0, 0.0])
    kl = kl_divergence(dist.Empirical(samples, log_weights), dist.Empirical(samples, moved))
    w = log_weights.softmax(-1)[0].item()
    assert kl.item() == pytest.approx(0.5e-14 * w * (1 - w), rel=1e-5)


def test_gradients():
    samples, log_weights = t([0.0, 2.0, 2.0, 5.0]), t([0.0, 0.3, -1.0, 0.5])

    def function(log_weights, rate):
        return kl_divergence(dist.Empirical(samples, log_weights), dist.Poisson(rate))

    inputs = log_weights.requires_grad_(), t([1.0, 3.0]).requires_grad_()
    assert torch.autograd.gradcheck(function, inputs)


def test_wrapped_priors():
    p = dist.Empirical(t([0.0, 1.0]), t([0.0, 0.0]))
    plain = kl_divergence(p, dist.Poisson(t(2.0)))
    assert kl_divergence(p, dist.Poisson(t(2.0)).mask(True)) == plain
    hidden = torch.tensor(False)
    assert kl_divergence(p.mask(hidden), dist.Poisson(t(2.0)).mask(hidden)) == 0
