"""The divergences next to the KL of structured pairs, at their cases: bounds, order, marginals."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Beta, Binomial, Dirichlet, Multinomial, MultivariateNormal

import pyro_kl

from ..conformance.structured_cases import STRUCTURED, as_tensors

pytestmark = [
    pytest.mark.usefixtures("nothing_warned", "double"),
    pytest.mark.filterwarnings("ignore:KL.*tolerance:UserWarning"),
]

LOG_2 = math.log(2)
#: Pairs with one of these have no Renyi divergence of orders other than 1.
NO_RENYI = {
    "CoalescentTimes", "CoalescentTimesWithRate", "GammaGaussianHMM", "GaussianScaleMixture",
    "GroupedNormalNormal", "LinearHMM", "MultivariateStudentT", "RelaxedOneHotCategorical",
    "SpanningTree",
}  # fmt: skip
CASES = [
    pytest.param(duo, case, id=f"{duo.id}[{i}]")
    for duo in STRUCTURED
    for i, case in enumerate(duo.pair.cases)
]


def members(duo, case):
    return [family(**as_tensors(x)) for family, x in duo.sides(case)]


def told(estimate):
    error = torch.zeros(()) if estimate.error is None else estimate.error
    return float(error) + 1e-9 * min(float(estimate), 1e9) + 1e-13


def answer(function, *arguments):
    """An estimate, or None where there is none."""
    try:
        return function(*arguments)
    except NotImplementedError:
        return None


def at_most(low, high, factor=1.0):
    if low is None or high is None:
        return True
    return float(low) <= factor * float(high) + told(low) + factor * told(high)


@pytest.mark.parametrize(("duo", "case"), CASES)
def test_inequalities(duo, case):
    p, q = members(duo, case)
    half, most, above = (answer(pyro_kl.renyi, p, q, order) for order in (0.5, 0.8, 1.3))
    names = {family.distribution.__name__ for family in duo.families}
    if half is None:
        assert names & NO_RENYI or {"Dirichlet", "LogisticNormal"} <= names, duo.id
    forward = pyro_kl.kl(p, q)
    assert at_most(half, most)
    assert at_most(most, forward)
    assert at_most(forward, above)
    swapped = answer(pyro_kl.renyi, q, p, 0.5)
    assert at_most(half, swapped)
    assert at_most(swapped, half)
    shannon, exchanged = (answer(pyro_kl.jensen_shannon, *pair) for pair in ((p, q), (q, p)))
    jeffreys = answer(pyro_kl.jeffreys, p, q)
    assert at_most(shannon, jeffreys, 0.25)
    if shannon is not None:
        assert float(shannon) <= LOG_2 + told(shannon)
        assert float(shannon) == pytest.approx(float(exchanged), rel=1e-9, abs=told(shannon))
        if half is not None:
            hellinger = -math.expm1(-float(half) / 2)  # its square
            slack = told(shannon) + told(half)
            assert hellinger / 2 - slack <= float(shannon) <= 2 * LOG_2 * hellinger + slack


# --- marginals -----------------------------------------------------------------------------------


def normal(loc, factor):
    covariance = factor @ factor.mT + torch.eye(len(loc))
    whole = MultivariateNormal(loc, covariance)
    return whole, MultivariateNormal(loc[:2], covariance[:2, :2])


def dirichlet(a):
    return Dirichlet(a), Beta(a[0], a[1:].sum())


def multinomial(weights):
    return Multinomial(5, weights), Binomial(5, weights[0] / weights.sum())


@pytest.mark.parametrize(
    "draw",
    [
        lambda: normal(torch.randn(4), torch.randn(4, 4)),
        lambda: dirichlet(0.3 + 3 * torch.rand(4)),
        lambda: multinomial(0.1 + torch.rand(4)),
    ],
    ids=["MultivariateNormal", "Dirichlet", "Multinomial"],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_marginal_is_no_further_apart(draw, seed):
    """Part of a vector, or one count of several: data processing."""
    torch.manual_seed(seed)
    (p, p_part), (q, q_part) = draw(), draw()
    for order in (0.3, 0.8, 1.3):
        assert at_most(pyro_kl.renyi(p_part, q_part, order), pyro_kl.renyi(p, q, order))
    parts, whole = (answer(pyro_kl.jensen_shannon, *x) for x in ((p_part, q_part), (p, q)))
    assert at_most(parts, whole)
