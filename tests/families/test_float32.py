"""The forms for float32 parameters against the same formula on the same numbers in float64."""

import pytest
import torch
from torch.distributions import (
    Beta,
    Exponential,
    Gamma,
    Gumbel,
    HalfNormal,
    LogNormal,
    Normal,
    Poisson,
    kl_divergence,
)

ROWS = 200
#: Half a unit in the last place of float32 is 6e-8; two roundings, and the error of the forms.
TOLERANCE = 1.5e-7
PAIRS = [
    (Normal, (0.3, 1.0), Normal, (0.3, 1.0)),
    (LogNormal, (0.3, 1.0), LogNormal, (0.3, 1.0)),
    (HalfNormal, (1.0,), HalfNormal, (1.0,)),
    (Exponential, (1.0,), Exponential, (1.0,)),
    (Exponential, (1.0,), Gamma, (1.0, 1.0)),
    (Gamma, (1.0, 1.0), Exponential, (1.0,)),
    (Gamma, (2.0, 1.0), Gamma, (2.0, 1.0)),
    (Gumbel, (0.3, 1.0), Gumbel, (0.3, 1.0)),
    (Beta, (2.0, 3.0), Beta, (2.0, 3.0)),
    (Poisson, (3.0,), Poisson, (3.0,)),
]


def neighbours(x):
    """Up to three float32 numbers away."""
    return x * (1 + torch.randint(-3, 4, (ROWS,)) * 2.0**-23)


def close(x):
    return x * (1 + 0.3 * 10.0 ** (-6 * torch.rand(ROWS)))


def far(x):
    return x * torch.exp(2 * torch.randn(ROWS))


def value_and_gradient(p, q, numbers, dtype):
    leaves = [x.to(dtype).requires_grad_() for x in numbers]
    n = len(p.arg_constraints)
    value = kl_divergence(p(*leaves[:n]), q(*leaves[n:]))
    found = [value, *torch.autograd.grad(value.sum(), leaves)]
    return [x.detach().float() for x in found]


@pytest.mark.parametrize("spread", [neighbours, close, far])
@pytest.mark.parametrize(
    ("p", "a", "q", "b"), PAIRS, ids=[f"{p.__name__}-{q.__name__}" for p, _, q, _ in PAIRS]
)
def test_rounded_once(p, a, q, b, spread):
    torch.manual_seed(0)
    numbers = [spread(torch.tensor(x)) for x in (*a, *b)]
    single = value_and_gradient(p, q, numbers, torch.float32)
    double = value_and_gradient(p, q, numbers, torch.float64)
    torch.testing.assert_close(single[0], double[0], rtol=TOLERANCE, atol=0.0)  # inf is inf
    for x, expected in zip(single[1:], double[1:], strict=True):
        # where a derivative changes its sign it is a difference of larger terms
        least = 1e-8 * expected[expected.isfinite()].abs().max().item()
        torch.testing.assert_close(x, expected, rtol=TOLERANCE, atol=least, equal_nan=True)
