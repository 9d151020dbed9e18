"""Distributions that nobody declared: what is +inf is decided by supports, never by a number."""

from __future__ import annotations

import math
from typing import ClassVar

import pyro.distributions
import pytest
import torch
from torch.distributions import (
    Cauchy,
    Distribution,
    HalfCauchy,
    Normal,
    SigmoidTransform,
    TransformedDistribution,
    Uniform,
)

import pyro_kl

F64 = torch.float64


class Own(Distribution):
    """A distribution that has nothing but a log density."""

    arg_constraints: ClassVar = {}

    def __init__(self, distribution, floor=-math.inf):
        self.distribution, self.floor = distribution, floor
        super().__init__(distribution.batch_shape, validate_args=False)

    @property
    def support(self):
        return self.distribution.support

    def log_prob(self, value):
        log_prob = self.distribution.log_prob(value)
        return torch.where(log_prob < self.floor, -math.inf, log_prob)


def of(cls, *parameters):
    return cls(*(torch.tensor(x, dtype=F64) for x in parameters))


def test_infinite_where_a_support_ends():
    found = pyro_kl.kl(Own(of(Normal, 0.0, 1.0)), Own(of(Uniform, -1.0, 1.0)))
    assert found.value == math.inf
    assert found.error == 0


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (Own(of(Normal, 0.0, 1.0)), Own(of(Normal, 0.0, 1.0), floor=-5.0)),
        (Own(of(Cauchy, 0.0, 1.0)), Own(of(Normal, 0.0, 1.0))),
    ],
    ids=["underflow", "too heavy"],
)
def test_no_infinity_from_a_number(p, q):
    """Log q is -inf, or overflows, where p has mass: no number, and no infinity either."""
    with pytest.raises(NotImplementedError, match=r"cannot be told.*monte_carlo"):
        pyro_kl.kl(p, q)
    assert pyro_kl.kl(of(Normal, 0.0, 1.0), p.distribution, num_samples=10).value.isfinite()


def test_a_map_that_saturates():
    """The sigmoid of a heavy tail is 1 in floating point, where most of this KL (+inf) is."""
    p = TransformedDistribution(of(HalfCauchy, 50.0), [SigmoidTransform()])
    with pytest.raises(NotImplementedError):
        pyro_kl.kl(p, Own(of(Uniform, 0.0, 1.0)))


def test_stable_has_no_log_density_to_integrate():
    stable = pyro.distributions.Stable(1.5, 0.0)
    same = pyro.distributions.Stable(1.5, 0.0)
    for p, q in ((stable, same), (stable, of(Cauchy, 0.0, 1.0)), (of(Cauchy, 0.0, 1.0), stable)):
        with pytest.raises(NotImplementedError, match=r"Stable.log_prob"):
            pyro_kl.kl(p, q)


def test_points_that_round_to_an_end_of_a_mapped_family():
    """Of which the class's own validation makes an error."""
    given = (pyro.distributions.AffineBeta, pyro.distributions.SkewLogistic)
    assert pyro_kl.check(*given).ok
