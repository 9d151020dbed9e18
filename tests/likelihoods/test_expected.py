"""The declared likelihoods against integrals at 40 digits, which reference.py made and stored."""

import json
import math

import numpy as np
import pytest
import torch

from pyro_kl.likelihoods import (
    BERNOULLI_LOGIT,
    BERNOULLI_PROBIT,
    GAUSSIAN,
    LIKELIHOODS,
    NEGATIVE_BINOMIAL,
    POISSON,
)

from .reference import STORED

D = torch.float64
ROWS = json.loads(STORED.read_text(encoding="utf-8"))
SCALAR = [likelihood for likelihood in LIKELIHOODS if not likelihood.event_dim]
CASES = [(each, example) for each in SCALAR for example in each.examples]
cases = pytest.mark.parametrize(
    ("likelihood", "example"),
    CASES,
    ids=[f"{each.name}-{example['y']:g}" for each, example in CASES],
)


def of(likelihood, example, dtype=D):
    """(rows, the likelihood's parameters, values and four derivatives at 40 digits)."""
    found = [row[2:] for row in ROWS if row[0] == likelihood.name and row[1] == example]
    loc, scale = (torch.tensor([row[i] for row in found], dtype=dtype) for i in (0, 1))
    y, *own = (torch.full_like(loc, x) for x in example.values())
    parameters = dict(zip(likelihood.parameters, own, strict=True))
    return (y, loc, scale), parameters, torch.tensor([row[2] for row in found], dtype=D).T


def assert_close(found, wanted, bound):
    worst = (found.to(D) - wanted).abs() / bound
    i = worst.argmax()
    assert worst[i] <= 1, (i, found[i].item(), wanted[i].item(), bound[i].item())


@cases
def test_values(likelihood, example):
    rows, parameters, (value, *_) = of(likelihood, example)
    rounding = 1e-13 * (1 + value.abs() + example.get("total_count", 1) * rows[1].abs())
    bound = likelihood.error(*rows, **parameters) + rounding
    assert_close(likelihood.expected(*rows, **parameters).value, value, bound)


@pytest.mark.parametrize("y", [0.0, 1.0])
def test_a_bernoulli_row_is_right_to_3e_8_and_exact_without_uncertainty(y):
    rows, _, (value, *_) = of(BERNOULLI_LOGIT, {"y": y})
    found = BERNOULLI_LOGIT.expected(*rows).value
    assert (found - value).abs().max() <= 3e-8
    certain = rows[2] == 0
    # also where the log likelihood is -2e-22
    torch.testing.assert_close(found[certain], value[certain], rtol=1e-15, atol=0)


@cases
def test_slopes_and_curvatures(likelihood, example):
    rows, parameters, (_, slope, second, *_) = of(likelihood, example)
    found = likelihood.expected(*rows, **parameters)
    count = 1 + example.get("total_count", 0) + example["y"]
    for x, wanted in ((found.slope, slope), (found.curvature, -second)):
        relative = 1e-10 if likelihood.method == "closed form" else 3e-8
        assert_close(x, wanted, relative * (wanted.abs() + count))


@cases
def test_higher_derivatives(likelihood, example):
    rows, parameters, (*_, third, fourth) = of(likelihood, example)
    count = 1 + example.get("total_count", 0) + example["y"]
    for x, wanted in zip(likelihood.higher(*rows, **parameters), (third, fourth), strict=True):
        assert_close(x, wanted, 4e-7 * (wanted.abs() + count))


@cases
def test_float32(likelihood, example):
    rows, parameters, (value, slope, second, *_) = of(likelihood, example, torch.float32)
    found = likelihood.expected(*rows, **parameters)
    size = 1 + example.get("total_count", 0) + example["y"]
    each = ((found.value, value), (found.slope, slope), (found.curvature, -second))
    for x, wanted in each:
        assert x.dtype == torch.float32
        # exp(x) has the error of x, which is relative; a rate may be beyond float32
        bound = 1e-5 * (wanted.abs() + size * (1 + rows[1].abs() / 8))
        fits = wanted.abs() < torch.finfo(torch.float32).max
        assert_close(x[fits], wanted[fits], bound[fits])


def by_trapezoidal_rule(loc, scale):
    """E softplus, E sigmoid and E sigmoid', in another way and to 1e-13."""
    z = np.arange(-900, 901) * 0.01
    weights = np.exp(-z * z / 2) / np.exp(-z * z / 2).sum()
    x = loc[:, None] + scale[:, None] * z
    p = 1 / (1 + np.exp(-np.clip(x, -700, None)))
    return np.logaddexp(0, x) @ weights, p @ weights, (p * (1 - p)) @ weights


def test_bernoulli_between_the_stored_rows():
    rng = np.random.default_rng(0)
    loc = rng.uniform(-50, 50, 4000) * rng.uniform(0, 1, 4000) ** 2
    scale = np.exp(rng.uniform(np.log(1e-3), np.log(30), 4000))
    softplus, mean, curvature = map(torch.from_numpy, by_trapezoidal_rule(loc, scale))
    found = BERNOULLI_LOGIT.expected(
        torch.zeros(4000, dtype=D), torch.from_numpy(loc), torch.from_numpy(scale)
    )
    assert (found.value + softplus).abs().max() <= 3.5e-9
    assert (found.slope + mean).abs().max() <= 1.2e-8
    assert (found.curvature - curvature).abs().max() <= 2.5e-8


@pytest.mark.parametrize("largest", [0.015, 0.05, 0.16, 0.2])
def test_the_series_keeps_the_bound_that_it_states(largest):
    loc = torch.linspace(-12, 12, 2001, dtype=D)
    scale = torch.full_like(loc, largest)
    y = torch.zeros_like(loc)
    softplus = torch.from_numpy(by_trapezoidal_rule(loc.numpy(), scale.numpy())[0])
    error = (BERNOULLI_LOGIT.expected(y, loc, scale).value + softplus).abs()
    bound = BERNOULLI_LOGIT.error(y, loc, scale)
    assert (error <= bound + 1e-13).all()
    assert error.max() > 0.3 * bound.max()


@pytest.mark.parametrize("likelihood", [BERNOULLI_LOGIT, BERNOULLI_PROBIT])
def test_a_row_does_not_depend_on_the_other_rows(likelihood):
    torch.manual_seed(0)
    loc, scale = 4 * torch.randn(300, dtype=D), 3 * torch.rand(300, dtype=D) ** 3
    y = torch.bernoulli(torch.full_like(loc, 0.5))
    together = likelihood.expected(y, loc, scale)
    for i in range(0, 300, 7):
        alone = likelihood.expected(y[i : i + 1], loc[i : i + 1], scale[i : i + 1])
        # but for the number of terms of the series
        assert (alone.value[0] - together.value[i]).abs() < 6e-9


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_huge_scales_and_means(dtype):
    loc = torch.tensor([1e3, -1e3, 1e3, 0.0], dtype=dtype)
    scale = torch.tensor([1e4, 1e4, 0.0, 1e4], dtype=dtype)
    found = BERNOULLI_LOGIT.expected(torch.zeros_like(loc), loc, scale)
    z = loc.to(D) / scale.to(D).clamp(min=1e-300)
    hinge = loc * torch.special.ndtr(z) + scale * torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    # E log(1 + exp(-|eta|)) is pi^2 / 6 times the density at 0.
    rest = math.pi**2 / 6 * torch.exp(-z * z / 2) / math.sqrt(2 * math.pi) / scale.clamp(min=1)
    rest[2] = 0.0
    torch.testing.assert_close(-found.value.to(D), hinge + rest, rtol=1e-6, atol=0)
    assert all(torch.isfinite(x).all() for x in (found.slope, found.curvature))
    probit = BERNOULLI_PROBIT.expected(torch.zeros_like(loc), loc, scale)
    v = scale.to(D).square() + loc.to(D).square()
    wanted = -0.5 * (v * torch.special.ndtr(z) + loc * scale * torch.exp(-z * z / 2) / 2.5066283)
    torch.testing.assert_close(probit.value.to(D), wanted, rtol=2e-5, atol=0)


@pytest.mark.parametrize("scale", [0.02, 0.12, 0.2])
def test_a_probit_row_far_below_0_is_almost_quadratic(scale):
    x = torch.tensor([-50.0, -200.0, -1000.0], dtype=D)
    for rows in (x, x[:1]):
        found = BERNOULLI_PROBIT.expected(
            torch.ones_like(rows), rows, torch.full_like(rows, scale)
        )
        # log Phi(x) = -x^2 / 2 - log(-x sqrt(2 pi)) + log(1 - 1 / x^2 + 3 / x^4 - ...)
        torch.testing.assert_close(found.slope, -rows - 1 / rows, rtol=0, atol=2e-5)
        torch.testing.assert_close(found.curvature, 1 - 1 / rows**2, rtol=0, atol=2e-6)


@pytest.mark.parametrize("likelihood", SCALAR, ids=lambda each: each.name)
def test_nothing_and_nan(likelihood):
    own = {name: torch.tensor(2.0, dtype=D) for name in likelihood.parameters}
    nothing = torch.zeros(0, dtype=D)
    assert likelihood.expected(nothing, nothing, nothing, **own).value.shape == (0,)
    y, one = torch.tensor([1.0, 1.0], dtype=D), torch.tensor([1.0, 0.1], dtype=D)
    lost = torch.tensor([math.nan, 0.1], dtype=D)
    for loc, scale in ((lost, one), (one, lost)):
        found = likelihood.expected(y, loc, scale, **own).value
        assert found.isnan().tolist() == [True, False]


def test_predictions():
    rows, _, (_, slope, *_) = of(BERNOULLI_LOGIT, {"y": 1.0})
    assert_close(BERNOULLI_LOGIT.predict(*rows[1:]), 1 - slope, torch.full_like(slope, 1.2e-8))
    loc, scale = torch.tensor([0.3, -2.0], dtype=D), torch.tensor([0.0, 1.5], dtype=D)
    z = torch.arange(-900, 901, dtype=D) * 0.01
    weights = torch.softmax(-z * z / 2, 0)
    x = loc[:, None] + scale[:, None] * z
    noise, count = torch.tensor(0.7, dtype=D), torch.tensor(3.0, dtype=D)
    for likelihood, mean, own in (
        (BERNOULLI_PROBIT, torch.special.ndtr(x), {}),
        (POISSON, torch.exp(x), {}),
        (GAUSSIAN, x, {"noise": noise}),
        (NEGATIVE_BINOMIAL, 3 * torch.exp(x), {"total_count": count}),
    ):
        torch.testing.assert_close(
            likelihood.predict(loc, scale, **own), mean @ weights, rtol=1e-12, atol=1e-14
        )
