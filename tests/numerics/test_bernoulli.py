"""KL terms of masses and Bernoulli KLs against mpmath at 60 digits: near, far, and at 0."""

from __future__ import annotations

import math

import pytest
import torch
from mpmath import exp, log, log1p, mp, mpf
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import Bernoulli, Binomial, Categorical, Geometric, kl_divergence

from pyro_kl.numerics.special.bernoulli import (
    bernoulli_kl,
    bernoulli_kl_over_probs,
    bernoulli_poisson_kl,
    excess_of_rounded_masses,
)
from pyro_kl.numerics.special.bernoulli_logits import (
    bernoulli_kl_of_logits,
    geometric_kl_of_logits,
)
from pyro_kl.numerics.special.divergences import kl_div_from_zero
from pyro_kl.numerics.special.log_sinhc import bregman_log_sinhc

pytestmark = pytest.mark.accuracy

F64 = torch.float64
#: Relative steps on both sides of every switch between a series and a logarithm.
STEPS = [1e-9, -1e-6, 1e-4, -1e-2, 0.06, -0.1, 0.13, 0.15, 0.2, -0.5, 0.7, -0.99]
SMALL = [1e-12, 1e-6, 1e-3, 0.2, 0.5, 0.9, 0.999, 1 - 1e-9]
LOGITS = [-300.0, -30.0, -3.0, -0.5, 1e-3, 2.0, 7.0, 40.0, 300.0]


def close_probs():
    pairs = [(y + step * min(y, 1 - y), y) for y in SMALL for step in STEPS]
    return pairs + [(x, y) for x in SMALL for y in SMALL if x != y]


def close_logits():
    pairs = [(b + step, b) for b in LOGITS for step in (*STEPS, 1.1, -3.0, 30.0)]
    return pairs + [(a, b) for a in LOGITS for b in LOGITS if a != b]


def close_rates():
    return [(x, x * (1 + step)) for x in SMALL for step in STEPS] + [(0.3, 50.0), (1e-9, 3.0)]


def close_tilts():
    sizes = [0.0, 1e-9, -1e-3, 0.7, -1.3, 1.99, 2.01, -3.5, 8.0, -40.0, 99.0, 101.0, -800.0, 1e6]
    pairs = [(x, x + step * max(abs(x), 1)) for x in sizes for step in STEPS]
    return pairs + [(x, y) for x in sizes for y in sizes if x != y]


def trial(x, y):
    return x * log(x / y) + (1 - x) * log((1 - x) / (1 - y))


def softplus(x):
    return log1p(exp(x))


def sigmoid(x):
    return 1 / (1 + exp(-x))


def log_sinhc(x):
    return log(mp.sinh(x / 2) / (x / 2)) if x else mpf(0)


def log_sinhc_slope(x):
    return mp.coth(x / 2) / 2 - 1 / x if x else mpf(0)


def log_sinhc_curvature(x):
    return 1 / x**2 - 1 / (4 * mp.sinh(x / 2) ** 2) if x else mpf(1) / 12


#: Function, arguments, definition, and its derivatives by both arguments.
CASES = {
    "kl_div": (
        kl_div_from_zero,
        close_probs(),
        lambda x, y: x * log(x / y) - x + y,
        lambda x, y: log(x / y),
        lambda x, y: 1 - x / y,
    ),
    "bernoulli": (
        bernoulli_kl,
        close_probs(),
        trial,
        lambda x, y: log(x / y) - log((1 - x) / (1 - y)),
        lambda x, y: (y - x) / (y * (1 - y)),
    ),
    "geometric": (
        bernoulli_kl_over_probs,
        close_probs(),
        lambda x, y: trial(x, y) / x,
        lambda x, y: -log((1 - x) / (1 - y)) / x**2,
        lambda x, y: (y - x) / (x * y * (1 - y)),
    ),
    "logits": (
        bernoulli_kl_of_logits,
        close_logits(),
        lambda a, b: softplus(b) - softplus(a) - (b - a) * sigmoid(a),
        lambda a, b: (a - b) * sigmoid(a) * sigmoid(-a),
        lambda a, b: sigmoid(b) - sigmoid(a),
    ),
    "geometric logits": (
        geometric_kl_of_logits,
        [(a, b) for a, b in [*close_logits(), (-900.0, -901.5), (-900.0, -899.99)] if a < 200],
        lambda a, b: (softplus(b) - softplus(a) - (b - a) * sigmoid(a)) / sigmoid(a),
        lambda a, b: exp(-a) * (softplus(a) - softplus(b)),
        lambda a, b: sigmoid(b) / sigmoid(a) - 1,
    ),
    "poisson": (
        bernoulli_poisson_kl,
        close_rates(),
        lambda x, r: x * log(x / r) + r + (1 - x) * log(1 - x),
        lambda x, r: log(x / r) - log(1 - x),
        lambda x, r: 1 - x / r,
    ),
    "log_sinhc": (
        lambda x, y: bregman_log_sinhc(x, y, y - x),
        close_tilts(),
        lambda x, y: log_sinhc(y) - log_sinhc(x) - (y - x) * log_sinhc_slope(x),
        lambda x, y: (x - y) * log_sinhc_curvature(x),
        lambda x, y: log_sinhc_slope(y) - log_sinhc_slope(x),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_slopes(name):
    function, pairs, *definitions = CASES[name]
    x, y = (torch.tensor(side, dtype=F64, requires_grad=True) for side in zip(*pairs, strict=True))
    value = function(x, y)
    found = (value, *torch.autograd.grad(value.sum(), (x, y)))
    # the textbook's difference of two softplus at 300 needs its digits
    with mp.workdps(900 if "logits" in name else 80):
        for column, definition in zip(found, definitions, strict=True):
            for got, pair in zip(column.tolist(), pairs, strict=True):
                truth = float(definition(*(mpf(v) for v in pair)))
                assert abs(got - truth) <= 2e-14 * abs(truth), (pair, got, truth)


@pytest.mark.parametrize("name", CASES)
def test_two_derivatives(name):
    function, pairs, *_ = CASES[name]
    low, high = (-8, 8) if "log" in name else (1e-4, 0.95)
    some = [pair for pair in pairs if low < min(pair) and max(pair) < high][::5]
    x, y = (torch.tensor(side, dtype=F64, requires_grad=True) for side in zip(*some, strict=True))
    assert gradcheck(function, (x, y), eps=1e-7, rtol=1e-4)
    assert gradgradcheck(function, (x, y), eps=1e-7, rtol=1e-3)


def test_masses_in_float32():
    """Neighbours in float32, and everything else, to 1e-8 of the term in float64."""
    y = torch.tensor(SMALL[:-1], dtype=torch.float32)
    steps = torch.tensor([2.0**-23, -(2.0**-22), 1e-3, -0.3, 0.9, -0.9, -0.999999])
    x = (y * (1 + steps.unsqueeze(-1))).flatten().double().requires_grad_()
    y = y.repeat(len(steps)).double().requires_grad_()
    value = excess_of_rounded_masses(x, y)
    right = kl_div_from_zero(x, y)
    found, wanted = (torch.autograd.grad(v.sum(), (x, y)) for v in (value, right))
    assert torch.allclose(value, right, rtol=2e-8, atol=0)
    for slope, other in zip(found, wanted, strict=True):
        assert torch.allclose(slope, other, rtol=1e-14, atol=0)


INF = math.inf


@pytest.mark.parametrize(
    ("name", "p", "q", "value", "slope_of_q"),
    [
        ("kl_div", 0.0, 0.3, 0.3, 1.0),
        ("kl_div", 0.0, 0.0, 0.0, 1.0),
        ("kl_div", 0.3, 0.0, INF, 0.0),
        ("bernoulli", 0.0, 0.25, -math.log(0.75), 4 / 3),
        ("bernoulli", 0.0, 0.0, 0.0, 1.0),
        ("bernoulli", 1.0, 1.0, 0.0, -1.0),
        ("bernoulli", 1.0, 0.25, math.log(4.0), -4.0),
        ("bernoulli", 0.5, 0.0, INF, 0.0),
        ("bernoulli", 0.5, 1.0, INF, 0.0),
        ("geometric", 1.0, 1.0, 0.0, -1.0),
        ("geometric", 0.5, 1.0, INF, 0.0),
        ("poisson", 0.0, 0.0, 0.0, 1.0),
        ("poisson", 0.0, 0.7, 0.7, 1.0),
        ("poisson", 1.0, 0.5, math.log(2.0) + 0.5, -1.0),
        ("poisson", 0.5, 0.0, INF, 0.0),
        ("logits", -INF, -INF, 0.0, 0.0),
        ("logits", -INF, 0.0, math.log(2.0), 0.5),
        ("logits", INF, 0.0, math.log(2.0), -0.5),
        ("logits", 0.0, INF, INF, 0.0),
        ("logits", 800.0, -800.0, 800.0, -1.0),
    ],
)
def test_at_the_ends(name, p, q, value, slope_of_q):
    """The value's limit, q's one-sided slope, and nothing that is not a number beside it."""
    x = torch.tensor([p, 0.3], dtype=F64, requires_grad=True)
    y = torch.tensor([q, 0.4], dtype=F64, requires_grad=True)
    kl = CASES[name][0](x, y)
    assert kl[0].item() == pytest.approx(value, rel=1e-14, abs=0)
    by_p, by_q = torch.autograd.grad(torch.where(kl.isfinite(), kl, 0.0).sum(), (x, y))
    assert by_p.isfinite().all()
    assert by_q[0].item() == pytest.approx(slope_of_q, rel=1e-14, abs=0)
    assert by_q[1].isfinite()


@pytest.mark.parametrize("name", ["kl_div", "bernoulli", "geometric", "poisson", "logits"])
def test_ends_under_compile(name):
    """What is compiled is differentiated by autograd: rows at the ends leave the others alone."""
    at_1 = [1.0, 1.0] if name == "geometric" else [0.0, 1.0]
    x = torch.tensor([*at_1, 0.5, 0.5, 0.3], dtype=F64)
    y = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.4], dtype=F64)
    if name == "logits":
        x, y = torch.logit(x), torch.logit(y)
    x.requires_grad_(), y.requires_grad_()
    function = CASES[name][0]
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    slopes = []
    for f in (function, compiled):
        kl = f(x, y)
        slopes += torch.autograd.grad(torch.where(kl.isfinite(), kl, 0.0).sum(), (x, y))
    assert all(slope.isfinite().all() for slope in slopes)
    assert torch.allclose(slopes[2][-1], slopes[0][-1], rtol=1e-12)
    assert torch.allclose(slopes[3][-1], slopes[1][-1], rtol=1e-12)


# --- categorical --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["probs", "logits"])
@pytest.mark.parametrize("other", ["probs", "logits"])
@pytest.mark.parametrize("step", [1e-6, 1e-2, 0.5])
def test_categorical(name, other, step):
    """By whichever parameter, in either precision, at what the constructors hold."""
    weights = torch.tensor([[0.1, 0.2, 0.7], [1e-9, 0.5, 0.5], [0.3, 0.3, 0.4]], dtype=F64)
    moved = weights * torch.tensor([1 + step, 1.0, 1.0], dtype=F64)
    for dtype, tolerance in ((F64, 1e-9), (torch.float32, 1e-6)):
        sides = [(x if key == "probs" else x.log()).to(dtype) for key, x in
                 ((name, weights), (other, moved))]  # fmt: skip
        p, q = Categorical(**{name: sides[0]}), Categorical(**{other: sides[1]})
        held = [
            getattr(distribution, key).double().tolist()
            for distribution, key in ((p, name), (q, other))
        ]
        kl = kl_divergence(p, q)
        assert kl.dtype == dtype
        with mp.workdps(50):
            for got, a, b in zip(kl.tolist(), *held, strict=True):
                truth = float(categorical_kl(masses_of(name, a), masses_of(other, b)))
                assert got == pytest.approx(truth, rel=tolerance), (a, b)


def masses_of(name, values):
    weights = [mpf(x) if name == "probs" else exp(mpf(x)) for x in values]
    return [x / sum(weights) for x in weights]


def categorical_kl(p, q):
    return sum(x * log(x / y) for x, y in zip(p, q, strict=True))


def test_categorical_gradients():
    """By the logits p (log p - log q - KL) and q - p, and one-sided where there is no mass."""
    a = torch.tensor([0.3, -1.0, 2.0], dtype=F64, requires_grad=True)
    b = torch.tensor([0.5, 0.5, 1.0], dtype=F64, requires_grad=True)
    p, q = a.softmax(-1), b.softmax(-1)
    kl = kl_divergence(Categorical(logits=a), Categorical(logits=b))
    by_a, by_b = torch.autograd.grad(kl, (a, b))
    assert torch.allclose(by_a, p * (p.log() - q.log() - kl), rtol=1e-13)
    assert torch.allclose(by_b, q - p, rtol=1e-13)
    x = torch.tensor([0.25, 0.0, 0.75], dtype=F64)
    y = torch.tensor([0.5, 0.0, 0.5], dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(kl_divergence(Categorical(x), Categorical(y)), y)
    # q's mass on the empty category is taken from the others in proportion
    assert torch.allclose(slope, torch.tensor([0.5, 1.0, -0.5], dtype=F64), rtol=1e-14)


# --- through kl_divergence ----------------------------------------------------------------------


def test_one_trial_of_each():
    """A Bernoulli's KL is a Geometric's, trial by trial, from probs and from logits."""
    x, y = torch.tensor(0.3, dtype=F64), torch.tensor(0.30003, dtype=F64)
    flips = kl_divergence(Bernoulli(x), Bernoulli(y))
    waits = kl_divergence(Geometric(x), Geometric(y))
    assert waits.item() == pytest.approx(flips.item() / 0.3, rel=1e-14)


def test_binomials_of_one_count_and_of_several():
    """The choice of the route changes nothing: a batch is its rows, of equal counts or not."""
    n = torch.tensor([3.0, 5.0, 5.0, 0.0], dtype=F64)
    m = torch.tensor([3.0, 7.0, 5.0, 2.0], dtype=F64)
    x, y = (torch.tensor(p, dtype=F64).expand(4) for p in (0.3, 0.300003))
    batch = kl_divergence(Binomial(n, x), Binomial(m, y))
    rows = [kl_divergence(Binomial(n[i], x[i]), Binomial(m[i], y[i])) for i in range(4)]
    assert torch.allclose(batch, torch.stack(rows), rtol=1e-13, atol=0)
    trial = kl_divergence(Bernoulli(x[0]), Bernoulli(y[0]))
    assert rows[0].item() == pytest.approx(3 * trial.item(), rel=1e-15)
    whole = kl_divergence(Binomial(5, x), Binomial(5, y))
    assert torch.equal(whole, rows[2].expand(4))
