"""Power series: Horner's rule and Chebyshev economisation."""

from __future__ import annotations

import math

import torch

from pyro_kl.numerics.special.series import economised, horner


def test_economised_is_shorter_and_as_good():
    """exp(x) on (0, 1/2) from twenty terms."""
    taylor = [1 / math.factorial(n) for n in range(20)]
    shorter = economised(taylor, 0.5)
    assert len(shorter) < 13
    x = torch.linspace(0, 0.5, 101, dtype=torch.float64)
    assert torch.allclose(horner(shorter, x), torch.exp(x), rtol=4e-16, atol=0)


def test_a_constant_is_a_polynomial():
    assert horner([2.0], torch.zeros(3)).tolist() == [2.0, 2.0, 2.0]
    assert economised([2.0], 1.0) == (2.0,)
