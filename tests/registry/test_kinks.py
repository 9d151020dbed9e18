"""Second derivatives through a kink: of a distribution that nobody declared, and of a mapped p."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from torch.distributions import (
    AffineTransform,
    Distribution,
    Laplace,
    LogNormal,
    Normal,
    SigmoidTransform,
    SoftplusTransform,
    TanhTransform,
    TransformedDistribution,
    constraints,
    kl_divergence,
)

import pyro_kl
from pyro_kl.numerics.quadrature.integrate import tolerance

pytestmark = pytest.mark.accuracy

F64 = torch.float64


class OwnLaplace(Distribution):
    """A Laplace that has nothing but a log density."""

    arg_constraints: ClassVar = {}
    support = constraints.real

    def __init__(self, loc, scale):
        self.loc, self.scale = loc, scale
        super().__init__(loc.shape, validate_args=False)

    def log_prob(self, value):
        return -(value - self.loc).abs() / self.scale - torch.log(2 * self.scale)


class OwnNormal(OwnLaplace):
    def log_prob(self, value):
        z = (value - self.loc) / self.scale
        return -0.5 * z * z - torch.log(self.scale) - 0.5 * math.log(2 * math.pi)


class OwnLogLaplace(OwnLaplace):
    support = constraints.positive

    def log_prob(self, value):
        return super().log_prob(value.log()) - value.log()


def parameters():
    return [torch.tensor(x, dtype=F64, requires_grad=True) for x in (0.3, 1.2, 0.5, 0.7)]


def hessian(function, inputs):
    slopes = torch.autograd.grad(function(*inputs), inputs, create_graph=True)
    rows = [
        torch.autograd.grad(
            slope, inputs, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for slope in slopes
    ]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize(
    ("p", "q", "as_p", "as_q"),
    [
        (Normal, OwnLaplace, Normal, Laplace),
        (OwnLaplace, OwnLaplace, Laplace, Laplace),
        (OwnLaplace, OwnNormal, Laplace, Normal),
        (LogNormal, OwnLogLaplace, Normal, Laplace),
        (OwnLogLaplace, OwnLogLaplace, Laplace, Laplace),
    ],
)
def test_undeclared(p, q, as_p, as_q):
    """Against the closed form of the same distributions, declared."""
    x = parameters()

    def by_integral(a, b, c, d):
        return pyro_kl.kl(p(a, b), q(c, d), tolerance=1e-10).value

    def closed(a, b, c, d):
        return kl_divergence(as_p(a, b), as_q(c, d))

    assert torch.allclose(by_integral(*x), closed(*x), rtol=1e-10)
    exact = hessian(closed, x)
    assert (hessian(by_integral, x) - exact).abs().max() <= 1e-6 * exact.abs().max()


@pytest.mark.parametrize("scale", [0.7, 7e-2, 7e-3, 7e-4])
def test_narrow_undeclared(scale):
    """A user's distribution may have its kink anywhere: the top of its density is looked for."""
    p, loc, width = (
        Normal(*(x.detach() for x in parameters()[:2])),
        *(torch.tensor(x, dtype=F64) for x in (0.5, scale)),
    )
    found = pyro_kl.kl(p, OwnLaplace(loc, width))
    right = kl_divergence(p, Laplace(loc, width))
    assert torch.allclose(found.value, right, rtol=1e-9)
    assert (found.value - right).abs() <= found.error


@pytest.mark.parametrize(
    "maps",
    [
        [TanhTransform()],
        [SoftplusTransform()],
        [SigmoidTransform(), AffineTransform(-1.0, 3.0)],
    ],
    ids=lambda maps: type(maps[0]).__name__,
)
def test_pushed_forward(maps):
    """Against differences of the gradient."""
    x = parameters()

    def kl(a, b, c, d):
        return kl_divergence(TransformedDistribution(Normal(a, b), maps), Laplace(c, d))

    def gradient(i, step):
        moved = [y.detach() + step * (j == i) for j, y in enumerate(x)]
        leaves = [y.requires_grad_() for y in moved]
        return torch.stack(torch.autograd.grad(kl(*leaves), leaves))

    with tolerance(1e-12):
        exact = hessian(kl, x)
        by_steps = [(gradient(i, 1e-5) - gradient(i, -1e-5)) / 2e-5 for i in range(4)]
    assert torch.allclose(exact, torch.stack(by_steps), rtol=1e-6, atol=1e-7)
