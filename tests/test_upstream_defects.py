"""Where torch 2.13 and Pyro 1.9.2 give a wrong KL: one row each, with the right value.

Values are from mpmath at 60 digits, at the float32 parameters unless a row says otherwise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pyro.distributions as d
import pytest
import torch
from torch import tensor as t
from torch.distributions import kl_divergence

from .reference import textbook

INF = math.inf


class Row(NamedTuple):
    """What it is, p and q, what upstream returns, and the right value."""

    id: str
    p: torch.distributions.Distribution
    q: torch.distributions.Distribution
    upstream: float | None
    truth: float


ROWS = [
    Row("bernoulli, logits 17", d.Bernoulli(t(0.5)), d.Bernoulli(logits=t(17.0)), INF, 7.80685),
    Row("bernoulli, tiny", d.Bernoulli(t(1e-10)), d.Bernoulli(t(1e-20)), 0.0, 2.2026e-9),
    Row(
        "categorical, logit gap 200",
        d.Categorical(t([0.5, 0.5])),
        d.Categorical(logits=t([0.0, -200.0])),
        INF,
        99.307,
    ),
    Row(
        "categorical, clamped",
        d.Categorical(t([0.5, 0.5])),
        d.Categorical(t([1.0, 1e-10])),
        7.278,
        10.820,
    ),
    Row(
        "categorical, 3 against 1",
        d.Categorical(t([1.0, 1.0, 1.0])),
        d.Categorical(t([1.0])),
        -1.0986,
        INF,
    ),
    Row("normal, ratio 1e-25", d.Normal(t(0.0), t(1e-25)), d.Normal(t(0.0), t(1.0)), INF, 57.0646),
    Row("half-normal, ratio 1e-25", d.HalfNormal(t(1e-25)), d.HalfNormal(t(1.0)), INF, 57.0646),
    Row(
        "lognormal, ratio 1e-25",
        d.LogNormal(t(0.0), t(1e-25)),
        d.LogNormal(t(0.0), t(1.0)),
        INF,
        57.0646,
    ),
    Row("exponential, 1e30", d.Exponential(t(1e30)), d.Exponential(t(1e-30)), INF, 137.155),
    Row("exponential || normal", d.Exponential(t(1e25)), d.Normal(t(0.0), t(1.0)), INF, 57.4836),
    Row("gamma || normal", d.Gamma(t(2.0), t(1e25)), d.Normal(t(0.0), t(1.0)), INF, 56.9064),
    Row("gamma, rates", d.Gamma(t(2.0), t(1e20)), d.Gamma(t(2.0), t(1e-25)), INF, 205.233),
    Row(
        "gamma, no digits",
        d.Gamma(t(1000.0), t(1.0)),
        d.Gamma(t(1000.1), t(1.0)),
        None,
        float(
            textbook.kl(
                "Gamma",
                {"concentration": 1000.0, "rate": 1.0},
                {"concentration": t(1000.1).item(), "rate": 1.0},
            )
        ),
    ),
    Row(
        "beta, no digits",
        d.Beta(t(1.01e6), t(3.03e5)),
        d.Beta(t(1e6), t(3e5)),
        -2.671875,
        2.4670406e-5,
    ),
    Row(
        "inverse gamma, no digits",
        d.InverseGamma(t(1e6), t(1.0)),
        d.InverseGamma(t(1.01e6), t(1.0)),
        None,
        float(
            textbook.kl(
                "Gamma",
                {"concentration": 1e6, "rate": 1.0},
                {"concentration": 1.01e6, "rate": 1.0},
            )
        ),
    ),
    Row(
        "normal, near, float64",
        d.Normal(t(0.0).double(), t(1 + 1e-8, dtype=torch.float64)),
        d.Normal(t(0.0).double(), t(1.0).double()),
        None,
        (1 + 1e-8 - 1) ** 2,
    ),
    Row("delta", d.Delta(t(0.0), t(2.0)), d.Normal(t(0.0), t(1.0)), 0.9189, 2.9189),
    Row("delta || delta", d.Delta(t(0.0), t(2.0)), d.Delta(t(0.0), t(2.0)), -2.0, 0.0),
    Row(
        "delta || torch's own class",
        d.Delta(t(0.0)),
        torch.distributions.Normal(t(0.0), t(1.0)),
        None,
        0.9189,
    ),
    Row(
        "product of deltas || MVN",
        d.Delta(torch.zeros(3), t([1.0, 1.0, 1.0])).to_event(1),
        d.MultivariateNormal(torch.zeros(3), torch.eye(3)),
        2.7568,
        5.7568,
    ),
    Row(
        "MVN product || deeper product",
        d.MultivariateNormal(torch.ones(2, 3), torch.eye(3)).to_event(1),
        d.Normal(torch.zeros(2, 3), t(1.0)).to_event(2),
        None,
        3.0,
    ),
    Row(
        "MVN || product",
        d.MultivariateNormal(torch.ones(3), torch.eye(3)),
        d.Normal(torch.zeros(3), t(1.0)).to_event(1),
        None,
        1.5,
    ),
    Row(
        "product || low rank",
        d.Normal(torch.ones(3), t(1.0)).to_event(1),
        d.LowRankMultivariateNormal(torch.zeros(3), torch.zeros(3, 1), torch.ones(3)),
        None,
        1.5,
    ),
    Row(
        "low rank || product",
        d.LowRankMultivariateNormal(torch.ones(3), torch.zeros(3, 1), torch.ones(3)),
        d.Normal(torch.zeros(3), t(1.0)).to_event(1),
        None,
        1.5,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
def test_right_value(row):
    kl = kl_divergence(row.p, row.q)
    assert kl.shape == ()
    assert kl.item() == pytest.approx(row.truth, rel=1e-4, abs=1e-15)
    if row.upstream is not None:  # the row would notice upstream's answer
        assert row.upstream != pytest.approx(row.truth, rel=1e-4, abs=1e-15)


@pytest.mark.xfail(raises=NotImplementedError, strict=True, reason="no rule for either yet")
@pytest.mark.parametrize("turned", [False, True], ids=["as p", "as q"])
def test_empty_wrapper(turned):
    """An Independent of no dimensions is its base, on either side."""
    wrapped, bare = (
        torch.distributions.Independent(d.Normal(t(1.0), t(1.0)), 0),
        d.Normal(t(0.0), t(1.0)),
    )
    kl = kl_divergence(bare, wrapped) if turned else kl_divergence(wrapped, bare)
    assert kl == 0.5


MISMATCHES = [
    ("normal", d.Normal(torch.zeros(3), 1.0).to_event(1), d.Normal(t([0.0]), 1.0).to_event(1)),
    ("delta", d.Delta(torch.zeros(3), event_dim=1), d.Normal(torch.zeros(3), 1.0)),
    ("plain", d.Normal(torch.zeros(3), 1.0), d.Normal(torch.zeros(3), 1.0).to_event(1)),
]


@pytest.mark.parametrize(("p", "q"), [m[1:] for m in MISMATCHES], ids=[m[0] for m in MISMATCHES])
def test_mismatched_events_raise(p, q):
    with pytest.raises(ValueError, match=r"event shapes .* differ"):
        kl_divergence(p, q)


def test_infinite_pairs_have_the_broadcast_shape():
    """torch answers in p's batch shape."""
    kl = kl_divergence(d.Normal(torch.zeros(3, 1), 1.0), d.Gamma(torch.ones(4), 1.0))
    assert kl.shape == (3, 4)
    assert kl.isinf().all()
