"""Where torch 2.13 and Pyro 1.9.2 give a wrong KL: one row each, with the right value.

Values are from mpmath at 60 digits, at the float32 parameters unless a row says otherwise.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import pyro.distributions as d
import pytest
import torch
from torch import tensor as t
from torch.distributions import kl_divergence

from ..conformance.reference.multiprecision import closed_forms

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
            closed_forms.kl(
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
            closed_forms.kl(
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


F64 = torch.float64

# What has more than one number: the row of section 1 of the note on upstream, p and q, what
# upstream returns (None: it raises, or is nan), and the right value.
NUMBERED = [
    ("1", d.Uniform(t(0.0), t(1.0)), d.ContinuousBernoulli(t(0.3)), INF, 0.029736118),
    ("2, same width", d.ContinuousBernoulli(t(0.3)), d.Uniform(t(0.0), t(1.0)), INF, 0.029386198),
    ("2, above", d.ContinuousBernoulli(t(0.3)), d.Uniform(t(0.0), t(2.0)), INF, 0.72253340),
    ("2, below", d.ContinuousBernoulli(t(0.3)), d.Uniform(t(-1.0), t(1.0)), INF, 0.72253340),
    (
        "3",
        d.FoldedDistribution(d.Normal(t(1.0), t(1.0))),
        d.FoldedDistribution(d.Normal(t(-1.0), t(1.0))),
        2.0,
        0.0,
    ),
    (
        "4",
        d.FoldedDistribution(d.Normal(t(1.0), t(1.0))),
        d.HalfNormal(t(1.0)),
        0.5,
        0.16316918,
    ),
    ("7, binomial", d.Binomial(5, t(0.5)), d.Binomial(5, logits=t(17.0)), INF, 39.0342640),
    ("7, geometric", d.Geometric(t(0.5)), d.Geometric(logits=t(17.0)), INF, 15.6137057),
    (
        "8, one-hot",
        d.OneHotCategorical(t([0.5, 0.5])),
        d.OneHotCategorical(logits=t([0.0, -200.0])),
        INF,
        99.3068528,
    ),
    ("10", d.Binomial(5, t(0.5)), d.Binomial(5, t(1e-9)), 36.390, 48.34242866),
    ("12", d.Geometric(t(1e-8)), d.Geometric(t(2e-8)), 17.942, 0.30685282),
    ("13", d.Binomial(5, t(1.0)), d.Binomial(5, t(0.5)), -INF, 3.46573590),
    ("14", d.Binomial(5, t(1.0)), d.Binomial(5, t(1.0)), None, 0.0),
    ("14, no trials", d.Binomial(0, t(1.0)), d.Binomial(0, t(0.5)), None, 0.0),
    ("15", d.Binomial(3, t(0.5)), d.Binomial(5, t(0.5)), None, 0.45542181),
    ("16", d.Binomial(5, t(0.0)), d.Binomial(3, t(0.5)), INF, 2.07944154),
    ("17", d.Poisson(t(0.0)), d.Poisson(t(2.0)), None, 2.0),
    ("17, both", d.Poisson(t(0.0)), d.Poisson(t(0.0)), None, 0.0),
    ("18, bernoulli", d.Poisson(t(0.0)), d.Bernoulli(t(0.5)), INF, 0.69314718),
    ("18, binomial", d.Poisson(t(0.0)), d.Binomial(2, t(0.5)), INF, 1.38629436),
    ("19", d.Bernoulli(t(0.0)), d.Poisson(t(0.0)), None, 0.0),
    ("20", d.Geometric(t(1.0)), d.Geometric(t(1.0)), INF, 0.0),
    ("21", d.Uniform(t(2.0), t(3.0)), d.Pareto(t(1e-3), t(100.0)), INF, 778.034101),
    ("22", d.Uniform(t(20.0), t(30.0)), d.Pareto(t(10.0), t(100.0)), -INF, 87.2586185),
    ("23, float32", d.Gamma(t(30.0), t(1e-3)), d.Gumbel(t(100.0), t(1.0)), None, 29889.98),
    (
        "23, float64",
        d.Gamma(t(1e7, dtype=F64), t(1e-3, dtype=F64)),
        d.Gumbel(t(1e10, dtype=F64), t(3.1622776601683795e6, dtype=F64)),
        None,
        0.22960904,
    ),
    ("24", d.Laplace(t(1e4), t(1.0)), d.Normal(t(1e4 + 1), t(1.0)), 0.22579, 0.72579135),
    (
        "25",
        d.Laplace(t(-1e4, dtype=F64), t(1e-6, dtype=F64)),
        d.Normal(t(-9999.999998585787, dtype=F64), t(1.414213562373095e-6, dtype=F64)),
        -3725.218,
        0.57236478,
    ),
    ("26", d.Normal(t(-1e4), t(1e-6)), d.Gumbel(t(-1e4), t(1e-6)), -0.41894, 0.22978273),
    (
        "27",
        d.ContinuousBernoulli(t(0.4985)),
        d.Normal(t(0.4995), t(0.28867)),
        -2.1399,
        0.17648581,
    ),
    (
        "28",
        d.ContinuousBernoulli(t(0.4985)),
        d.ContinuousBernoulli(t(0.5015)),
        1.978e-5,
        6.0001162e-6,
    ),
    (
        "29",
        d.ContinuousBernoulli(logits=t(100.0)),
        d.ContinuousBernoulli(logits=t(50.0)),
        46.864,
        0.19314718,
    ),
    ("32, tiny", d.Cauchy(t(0.0), t(1e-25)), d.Cauchy(t(0.0), t(2e-25)), None, 0.11778304),
    ("32, large", d.Cauchy(t(0.0), t(1e19)), d.Cauchy(t(0.0), t(2e19)), None, 0.11778304),
    ("32, half", d.HalfCauchy(t(1e-25)), d.HalfCauchy(t(2e-25)), None, 0.11778304),
    ("33", d.Laplace(t(0.0), t(1e-25)), d.Normal(t(0.0), t(1e-25)), None, 0.22579135),
    ("34", d.Uniform(t(0.0), t(1.0)), d.Uniform(t(-3e38), t(3e38)), INF, 89.2899932),
    # a float32 cannot hold 3.1e86: infinity is its rounded value there
    ("35", d.Uniform(t(0.0), t(1.0)), d.Gumbel(t(100.0), t(0.5)), None, INF),
]


@pytest.mark.parametrize(
    ("p", "q", "upstream", "truth"),
    [row[1:] for row in NUMBERED],
    ids=[row[0] for row in NUMBERED],
)
def test_numbered_row(p, q, upstream, truth):
    kl = kl_divergence(p, q)
    assert kl.shape == ()
    assert kl.item() == pytest.approx(truth, rel=1e-5, abs=1e-15)
    if upstream is not None:
        assert upstream != pytest.approx(truth, rel=1e-4, abs=1e-15)


GRADIENT_TRUTHS = [
    # section 3: value is right upstream, a derivative is not
    ("ContinuousBernoulli(.4985)", 0.4985, 0.3, 0.2804),
    ("ContinuousBernoulli(.499)", 0.499, 0.3, 0.2811),
]


@pytest.mark.parametrize(
    ("probs", "other", "slope"),
    [g[1:] for g in GRADIENT_TRUTHS],
    ids=[g[0] for g in GRADIENT_TRUTHS],
)
def test_gradient_near_the_uniform(probs, other, slope):
    """torch's float32 slopes there are -1.0 and -5.4."""
    x = t(probs, requires_grad=True)
    kl_divergence(d.ContinuousBernoulli(x), d.ContinuousBernoulli(t(other))).backward()
    assert x.grad.item() == pytest.approx(slope, rel=1e-3)


ONE_SIDED = [
    (d.Bernoulli, 0.0, 1.0),
    (d.Bernoulli, 1.0, -1.0),
    (d.Geometric, 1.0, -1.0),
    (partial(d.Binomial, 5), 0.0, 5.0),
    (partial(d.Binomial, 5), 1.0, -5.0),
    (d.Poisson, 0.0, 1.0),
]


@pytest.mark.parametrize(("distribution", "end", "slope"), ONE_SIDED)
def test_slope_where_neither_has_mass(distribution, end, slope):
    """KL = -log(1 - q) where p.probs is 0, which has a slope at q.probs = 0; upstream's is 0."""
    x = torch.tensor(end, dtype=torch.float64, requires_grad=True)
    kl = kl_divergence(distribution(x.detach()), distribution(x))
    assert kl == 0
    assert torch.autograd.grad(kl, x)[0] == slope


def test_curvature_of_laplace_at_one_place():
    """The Hessian by p.loc at p.loc == q.loc is 1 / (b_p b_q), and 0 upstream."""
    loc = t(0.0, requires_grad=True)
    kl = kl_divergence(d.Laplace(loc, t(1.0)), d.Laplace(t(0.0), t(2.0)))
    (slope,) = torch.autograd.grad(kl, loc, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, loc)
    assert curvature.item() == pytest.approx(0.5, rel=1e-6)


def test_gradient_of_categories_without_mass():
    """-inf among p's logits: upstream's gradient is nan for all of them."""
    logits = t([0.0, 1.0, -INF], requires_grad=True)
    q = d.Categorical(logits=t([0.5, 0.0, -1.0]))
    kl_divergence(d.Categorical(logits=logits), q).backward()
    assert logits.grad.isfinite().all()
    free = t([0.0, 1.0], requires_grad=True)
    log_q = q.logits[:2]
    p = torch.softmax(free, -1)
    (p * (torch.log_softmax(free, -1) - log_q)).sum().backward()
    assert torch.allclose(logits.grad[:2], free.grad, atol=1e-6)
    assert logits.grad[2] == 0


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


EXTENDED = {
    "binomial": lambda n: d.ExtendedBinomial(n, t(0.3)),
    "beta-binomial": lambda n: d.ExtendedBetaBinomial(t(2.0), t(3.0), n),
}
PLAIN = {
    "binomial": lambda n: d.Binomial(n, t(0.3)),
    "beta-binomial": lambda n: d.BetaBinomial(t(2.0), t(3.0), n),
}


@pytest.mark.parametrize("name", EXTENDED)
def test_extended_counts(name):
    """A negative total_count leaves no mass anywhere; others are the parent's."""
    distribution, q = EXTENDED[name], d.Binomial(t(7.0), t(0.5))
    for bad in (t(-5.0), torch.tensor([3, -1])):
        for other in (distribution(bad), q, d.Poisson(t(2.0)), d.Normal(t(0.0), t(1.0))):
            for a, b in ((distribution(bad), other), (other, distribution(bad))):
                with pytest.raises(ValueError, match="total_count is negative"):
                    kl_divergence(a, b)
    n = t([0.0, 5.0])
    for other in (q, d.Poisson(t(2.0)), PLAIN[name](t(9.0))):
        right = kl_divergence(PLAIN[name](n), other)
        assert torch.equal(kl_divergence(distribution(n), other), right)
        assert right.isfinite().all()
    assert torch.equal(
        kl_divergence(q, distribution(t(9.0))), kl_divergence(q, PLAIN[name](t(9.0)))
    )
