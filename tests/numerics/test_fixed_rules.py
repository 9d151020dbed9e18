"""Rules with a fixed number of nodes: what they integrate exactly, and the digits near p = q."""

import math

import pytest
import torch

from pyro_kl.numerics.quadrature.fixed import equal_steps, kl_at_nodes, panel

F64 = torch.float64


@pytest.mark.parametrize("power", range(10))
def test_five_nodes_integrate_polynomials_of_degree_nine(power):
    x, weights = panel(5, -1.0, 2.0)
    exact = (2.0 ** (power + 1) - (-1.0) ** (power + 1)) / (power + 1)
    assert (weights * x**power).sum().item() == pytest.approx(exact, rel=1e-14)


def test_equal_steps_are_constants_of_each_row():
    low = torch.tensor([[0.0], [1.0]], dtype=F64, requires_grad=True)
    high = torch.tensor([2.0, 3.0, 5.0], dtype=F64)
    nodes, step = equal_steps(low, high, 5)
    assert nodes.shape == (2, 3, 5)
    assert step.shape == (2, 3)
    assert not nodes.requires_grad
    assert torch.equal(nodes[..., 0], low.detach().expand(2, 3))
    assert torch.allclose(nodes[..., -1], high.expand(2, 3), rtol=1e-15)


@pytest.mark.parametrize("shift", [1e-9, 1e-5, 1e-2, 3.0])
def test_kl_of_two_normals_keeps_its_digits(shift):
    x, step = equal_steps(torch.tensor(-12.0, dtype=F64), 12.0, 200)
    log_p, log_q = (-0.5 * (x - m) ** 2 - 0.5 * math.log(2 * math.pi) for m in (0.0, shift))
    log_ratio = 0.5 * shift**2 - shift * x if shift < 1 else log_p - log_q
    kl = kl_at_nodes(step * torch.exp(log_p), log_ratio)
    assert kl.item() == pytest.approx(0.5 * shift**2, rel=1e-8)
