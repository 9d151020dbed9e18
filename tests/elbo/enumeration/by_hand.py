"""A sum over all assignments as a question to an enumerating ELBO: value and gradient."""

import math

import numpy as np
import pyro
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer import TraceEnum_ELBO
from torch.distributions import normal as torch_normal

import pyro_kl

ELBO = pyro_kl.TraceEnumKL_ELBO
#: Pyro's class shows that the sums are right.
both = pytest.mark.parametrize(
    "Elbo", [ELBO, pytest.param(TraceEnum_ELBO, marks=pytest.mark.sweep)]
)

P = torch.tensor([0.4, 0.6], dtype=torch.float64)
Y = torch.tensor([0.3, -1.0, 1.4], dtype=torch.float64)
SEEN = torch.tensor([True, False, True])


def gauss_hermite(count):
    """Nodes and weights of an expectation over a standard Normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.as_tensor(nodes), torch.as_tensor(weights / math.sqrt(2 * math.pi))


def positive(name, start):
    return pyro.param(name, lambda: torch.as_tensor(start), constraint=constraints.positive)


def real(name, start):
    return pyro.param(name, lambda: torch.as_tensor(start))


def simplex(name, start):
    return pyro.param(name, lambda: torch.as_tensor(start), constraint=constraints.simplex)


def expected(elbo, model, guide, monkeypatch, nodes):
    """Loss and gradient, integrated over the noise of all Normal draws."""
    loss, gradient = 0.0, {}
    for node, weight in zip(*gauss_hermite(nodes), strict=True):
        monkeypatch.setattr(
            torch_normal,
            "_standard_normal",
            lambda shape, dtype, device, at=node: at.expand(shape),
        )
        loss += float(weight) * elbo.loss_and_grads(model, guide)
        for name, parameter in pyro.get_param_store().named_parameters():
            if parameter.grad is not None:
                gradient[name] = gradient.get(name, 0.0) + weight * parameter.grad
                parameter.grad = None
    monkeypatch.undo()
    return loss, gradient


def agree(Elbo, model, guide, by_hand, monkeypatch, nodes=1, nesting=1):
    """An ELBO has the value and the gradient of the sum over all assignments."""
    elbo = Elbo(max_plate_nesting=nesting)
    loss, gradient = expected(elbo, model, guide, monkeypatch, nodes)
    truth = -by_hand()
    assert loss == pytest.approx(truth.item(), abs=1e-10, rel=1e-10)
    parameters = dict(pyro.get_param_store().named_parameters())
    truths = torch.autograd.grad(truth, list(parameters.values()), allow_unused=True)
    for name, slope in zip(parameters, truths, strict=True):
        slope = torch.zeros_like(parameters[name]) if slope is None else slope
        found = gradient.get(name, torch.zeros_like(slope))
        torch.testing.assert_close(found, slope, rtol=1e-9, atol=1e-10, msg=name)
