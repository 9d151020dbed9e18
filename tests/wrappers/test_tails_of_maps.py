"""Whether a KL under maps is finite, against what the tails say by hand."""

from __future__ import annotations

import math

import pytest
import torch
from pyro.distributions import FoldedDistribution
from torch.distributions import (
    AffineTransform,
    Beta,
    Cauchy,
    Distribution,
    Exponential,
    ExpTransform,
    Gamma,
    Gumbel,
    HalfCauchy,
    HalfNormal,
    Laplace,
    LogNormal,
    Normal,
    Pareto,
    PowerTransform,
    SigmoidTransform,
    SoftplusTransform,
    StudentT,
    TanhTransform,
    TransformedDistribution,
    Uniform,
)

import pyro_kl

EXP, SIGMOID, SOFTPLUS, TANH = (
    ExpTransform(), SigmoidTransform(), SoftplusTransform(), TanhTransform(),
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:KL.*tolerance:UserWarning")


def of(cls, *numbers):
    return cls(*(torch.tensor(x, dtype=torch.float64) for x in numbers))


def under(base: Distribution, *maps) -> Distribution:
    return TransformedDistribution(base, list(maps))


def power(k):
    return PowerTransform(torch.tensor(k, dtype=torch.float64))


#: Where p's tail is exp(-y) of the sigmoid's argument, -log q grows like ...
CASES = [
    # |y|, of which an index of 1 has no mean
    (under(of(StudentT, 0.88, -472.0, 0.03), SIGMOID), of(Beta, 2.0, 3.0), False),
    (under(of(StudentT, 1.5, 0.0, 1.0), SIGMOID), of(Beta, 2.0, 3.0), True),
    (under(of(StudentT, 0.88, 0.0, 1.0), SIGMOID), of(HalfCauchy, 1.0), False),
    (under(of(StudentT, 1.2, 0.0, 1.0), TANH), of(Uniform, -1.0, 1.0), True),
    (under(of(Cauchy, 0.0, 1.0), SOFTPLUS), of(Exponential, 1.0), False),
    (of(Cauchy, 0.0, 1.0), under(of(Beta, 1.0, 1.0), SIGMOID.inv), False),
    # y^2
    (under(of(StudentT, 1.5, 0.0, 1.0), SIGMOID), of(LogNormal, 0.0, 1.0), False),
    (under(of(StudentT, 3.0, 0.0, 1.0), SIGMOID), of(LogNormal, 0.0, 1.0), True),
    (under(of(HalfCauchy, 1.0), AffineTransform(0.0, -2.0)), of(Normal, 0.0, 1.0), False),
    (under(of(Pareto, 1.0, 1.9), power(1.0), SOFTPLUS), of(HalfNormal, 1.0), False),
    # a power of a power, and its logarithm
    (under(of(Pareto, 1.0, 1.9), power(2.0), SOFTPLUS.inv), of(Laplace, 0.0, 1.0), False),
    (under(of(Pareto, 1.0, 4.5), power(2.0), SOFTPLUS.inv), of(Laplace, 0.0, 1.0), True),
    (under(of(HalfCauchy, 1.0), AffineTransform(3.0, 2.0), EXP.inv), of(Normal, 0.0, 1.0), True),
    # exp(|y|), against exp(-rate |y|)
    (under(of(Laplace, 0.0, 0.9), EXP), of(Gamma, 2.0, 3.0), True),
    (under(of(Laplace, 0.0, 1.1), EXP), of(Gamma, 2.0, 3.0), False),
    (under(of(Laplace, 0.0, 0.45), EXP), of(HalfNormal, 2.0), True),
    (under(of(Laplace, 0.0, 0.6), EXP), of(HalfNormal, 2.0), False),
    (under(of(StudentT, 9.0, 0.0, 1.0), EXP), of(Gamma, 2.0, 3.0), False),
    (under(of(Normal, 0.0, 0.6), EXP, AffineTransform(1.0, 1.0)), of(Gamma, 2.0, 3.0), True),
    # exp(exp(y)), against a Gumbel's exp(-exp(-y / scale)) below
    (under(of(Normal, 0.0, 0.6), EXP, EXP), of(HalfNormal, 2.0), False),
    (under(of(Gumbel, 0.0, 0.5), AffineTransform(0.0, -1.0), EXP, EXP), of(Gamma, 2.0, 1.0),
     True),
    (under(of(Gumbel, 0.0, 1.5), AffineTransform(0.0, -1.0), EXP, EXP), of(Gamma, 2.0, 1.0),
     False),
    # the heavier of two tails that are folded onto one
    (of(Pareto, 1.0, 2.0), FoldedDistribution(of(Gumbel, 0.0, 1.0)), True),
    (of(HalfCauchy, 1.0), FoldedDistribution(of(Gumbel, 0.0, 1.0)), False),
    (under(FoldedDistribution(of(Cauchy, 0.0, 1.0)), AffineTransform(3.0, -2.0)),
     of(Laplace, 0.0, 1.0), False),
]  # fmt: skip


@pytest.mark.parametrize(("p", "q", "finite"), CASES)
def test_finite_where_the_tails_say_so(p, q, finite):
    found = pyro_kl.kl(p, q)
    assert math.isfinite(found.value.item()) == finite
    assert not finite or found.error.item() < 1e-6


def test_a_tail_that_floats_cannot_follow_is_declined():
    """Not left to torch's log_prob, whose sigmoid is 1 from 37 on."""
    p = under(of(Normal, 0.0, 20.0), EXP, AffineTransform(1.0, 1.0))
    with pytest.raises(NotImplementedError, match=r"further than\s+floating point"):
        pyro_kl.kl(p, of(Exponential, 1.0))
