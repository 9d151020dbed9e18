"""Renyi and Jensen-Shannon divergences at nodes that cover both densities: the numbers of panels.

Panels search for the mass of what they integrate; they are compared with references elsewhere.
"""

from __future__ import annotations

import pytest
import torch
from torch.distributions import (
    Beta,
    Gamma,
    Gumbel,
    HalfNormal,
    InverseGamma,
    Kumaraswamy,
    Laplace,
    LogNormal,
    Normal,
    StudentT,
)

import pyro_kl
from pyro_kl.divergence.integrals import jensen_shannon, renyi
from pyro_kl.divergence.integrals.trapezoid import summed
from pyro_kl.numerics.special.alpha_divergences import jensen_shannon_inside

pytestmark = pytest.mark.usefixtures("nothing_warned", "double")

DIVERGENCES = {
    "Renyi 0.3": (lambda p, q: pyro_kl.renyi(p, q, 0.3), lambda p, q: renyi._by_panels(p, q, 0.3)),
    "Renyi 0.8": (lambda p, q: pyro_kl.renyi(p, q, 0.8), lambda p, q: renyi._by_panels(p, q, 0.8)),
    "Jensen-Shannon": (pyro_kl.jensen_shannon, jensen_shannon._by_panels),
}
PAIRS = {
    "a kink": (Normal, Laplace),
    "a half-line": (Gamma, LogNormal),
    "an interval": (Beta, Kumaraswamy),
    "a heavy tail": (StudentT, Normal),
    "a heavier tail": (Normal, StudentT),
    "a very light tail": (InverseGamma, Gamma),
}
ROWS = 24


def leaves(cls: type) -> list[torch.Tensor]:
    """Parameters of some rows."""
    ranges = {"loc": (-1.0, 1.0), "df": (3.5, 12.0)}
    names = [x for x in cls.arg_constraints if x not in ("probs", "logits")]
    found = []
    for low, high in (ranges.get(name, (0.7, 2.5)) for name in names):
        found.append((low + (high - low) * torch.rand(ROWS)).requires_grad_())
    return found


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("pair", PAIRS)
def test_values_and_derivatives_are_those_of_panels(pair, divergence):
    torch.manual_seed(len(pair))
    (p, q), (quick, slow) = PAIRS[pair], DIVERGENCES[divergence]
    tensors = [leaves(p), leaves(q)]
    found, expected = (f(p(*tensors[0]), q(*tensors[1])) for f in (quick, slow))
    assert ((found.value - expected.value).abs() <= found.error + expected.error).all()
    assert (found.error <= 2e-11 * found.value).all()
    every = [*tensors[0], *tensors[1]]
    slopes, correct = (torch.autograd.grad(x.value.sum(), every) for x in (found, expected))
    for slope, other in zip(slopes, correct, strict=True):
        torch.testing.assert_close(slope, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("pair", PAIRS)
def test_most_rows_are_settled(pair):
    torch.manual_seed(len(pair))
    p, q = (cls(*leaves(cls)) for cls in PAIRS[pair])
    found = summed(p, q, jensen_shannon_inside, 0.25)
    assert found is not None
    assert found.settled.double().mean() > 0.9


def test_second_derivatives():
    torch.manual_seed(0)
    mine, theirs = leaves(StudentT), leaves(Normal)

    def slopes(f):
        value = f(StudentT(*mine), Normal(*theirs)).value
        first = torch.autograd.grad(value.sum(), mine, create_graph=True)
        return torch.autograd.grad(sum(x.square().sum() for x in first), [*mine, *theirs])

    for quick, slow in (DIVERGENCES["Renyi 0.8"], DIVERGENCES["Jensen-Shannon"]):
        for found, expected in zip(slopes(quick), slopes(slow), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_row_that_the_nodes_miss_is_what_it_is_alone(divergence):
    """Rows that are narrow, far apart, off by rounding in log gamma, or nan, and a usual one."""
    quick, slow = DIVERGENCES[divergence]
    concentration = torch.tensor([2.0, 1e6, 1e-3, 5e4, float("nan")])
    rate = torch.tensor([1.0, 1e6, 1.0, 1.0, 1.0])
    p, q = (concentration, rate), (torch.tensor(0.2), torch.tensor(0.8))
    found = quick(Gamma(*p, validate_args=False), LogNormal(*q))
    for row in range(4):
        alone = slow(Gamma(*(x[row] for x in p)), LogNormal(*q))
        torch.testing.assert_close(found.value[row], alone.value, rtol=1e-10, atol=0.0)
    assert found.value[4].isnan()


def test_other_supports_are_left_to_panels():
    p, q = HalfNormal(torch.ones(3)), Normal(torch.zeros(3), torch.ones(3))
    assert summed(p, q, jensen_shannon_inside, 0.25) is None


def test_rows_that_are_nearly_apart_are_left_to_panels():
    """In a batch of such rows, the nodes alone were off by 9e-13 and told 6e-13."""
    p = Gumbel(torch.tensor([-0.06883463828829539]), torch.tensor([0.10940005970534121]))
    q = Normal(torch.tensor([-1.1888288859998504]), torch.tensor([0.12937322578793492]))
    found, by_panels = pyro_kl.jensen_shannon(p, q), jensen_shannon._by_panels(p, q)
    assert found.error is not None
    assert torch.equal(found.error, by_panels.error)
    # mpmath, 30 digits
    assert abs(float(found.value) - 0.693147178110718372514) < 1e-14
