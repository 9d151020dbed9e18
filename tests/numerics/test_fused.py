"""One node of autograd's graph: tensors that are used twice, and graphs that are retained."""

import pytest
import torch
from torch.distributions import Gamma, MultivariateNormal, Normal, kl_divergence


def test_shared_factor_with_create_graph():
    """Of a tensor that p and q share, each use counts once."""
    tril = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64, requires_grad=True)
    loc = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    p = MultivariateNormal(loc, scale_tril=tril)
    q = MultivariateNormal(torch.zeros_like(loc), scale_tril=tril)
    once = torch.autograd.grad(kl_divergence(p, q), (loc, tril))
    again = torch.autograd.grad(kl_divergence(p, q), (loc, tril), create_graph=True)
    for x, y in zip(once, again, strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(10,), (40_000,), (200, 200)])
def test_retained_graph(shape, dtype):
    """Gradients that overwrite what was kept leave the parameters and a later pass alone."""
    torch.manual_seed(0)
    first = [(1 + torch.rand(shape)).to(dtype).requires_grad_() for _ in range(3)]
    parameters = [*first, (1 + torch.rand(shape[-1:])).to(dtype).requires_grad_()]
    before = [x.detach().clone() for x in parameters]
    loc, scale, mu, sigma = parameters
    for p, q in ((Normal(loc, scale), Normal(mu, sigma)), (Gamma(loc, scale), Gamma(mu, sigma))):
        value = kl_divergence(p, q).sum()
        found = torch.autograd.grad(value, parameters, retain_graph=True)
        kept = [x.clone() for x in found]
        again = torch.autograd.grad(value, parameters)
        for x, y, z in zip(found, kept, again, strict=True):
            assert torch.equal(x, y)
            assert torch.equal(x, z)
    assert all(torch.equal(x, y) for x, y in zip(parameters, before, strict=True))
