"""The optimum of the ELBO by L-BFGS and autograd, which shares nothing with pyro_kl."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize

#: The trapezoidal rule of a standard Normal: its error is far below rounding for any predictor
#: whose sd is at most 5.
NODES = torch.linspace(-9.0, 9.0, 181, dtype=torch.float64)
WEIGHTS = torch.softmax(-0.5 * NODES**2, dim=0)


def expected_log_likelihood(table, design, loc, tril):
    """The sum over rows, nats; a Poisson's without the logarithms of the factorials."""
    target = torch.tensor(table.target)
    mean, scale = design @ loc, torch.linalg.vector_norm(design @ tril, dim=-1)
    if table.likelihood == "poisson":
        return (target * mean - torch.exp(mean + 0.5 * scale**2)).sum()
    values = torch.nn.functional.softplus(mean[:, None] + scale[:, None] * NODES)
    return (target * mean - values @ WEIGHTS).sum()


def optimum(table, prior_scale, beta=1.0, diagonal=False, tilt=0.0):
    """Return loc, scale_tril and the ELBO at its optimum, as numpy has them.

    Args:
        table: features and target.
        prior_scale: of the coefficients, shape ``(D + 1,)``.
        beta: the weight of the KL.
        diagonal: whether the posterior has no correlations.
        tilt: is added to the gradient of the log posterior, shape ``(D + 1,)``.

    The search starts at the mode, in the coordinates of its curvature.
    """
    design, prior_scale = torch.tensor(table.design), torch.tensor(prior_scale)
    tilt = torch.as_tensor(tilt)
    size = design.shape[1]
    mode, root = laplace(table, design, prior_scale)
    if diagonal:
        root = torch.diag(torch.linalg.vector_norm(root, dim=-1))
    rows, columns = torch.tril_indices(size, size, offset=-1)

    def at(parameters):
        inner = torch.diag(parameters[size : 2 * size].exp())
        if not diagonal:
            inner = inner.index_put((rows, columns), parameters[2 * size :])
        return mode + root @ parameters[:size], root @ inner

    def elbo(parameters):
        loc, tril = at(parameters)
        likelihood = expected_log_likelihood(table, design, loc, tril)
        precision = prior_scale**-2
        cross_entropy = 0.5 * (precision @ (loc**2 + (tril**2).sum(-1)) - precision.log().sum())
        entropy = tril.diagonal().log().sum() + 0.5 * size
        return likelihood - beta * (cross_entropy - entropy) + torch.sum(tilt * loc)

    def minus(parameters):
        leaf = torch.tensor(parameters, requires_grad=True)
        value = -elbo(leaf)
        value.backward()
        return value.item(), leaf.grad.numpy()

    start = np.zeros(2 * size if diagonal else 2 * size + len(rows))
    options = {"maxiter": 20_000, "maxfun": 20_000, "ftol": 0.0, "gtol": 1e-9, "maxcor": 50}
    found = minimize(minus, start, jac=True, method="L-BFGS-B", options=options)
    loc, tril = at(torch.tensor(found.x))
    return loc.numpy(), tril.numpy(), -found.fun


def laplace(table, design, prior_scale):
    """Return the posterior's mode, and a Cholesky factor of its inverse curvature, by Newton."""
    target, precision = torch.tensor(table.target), prior_scale**-2
    loc = torch.zeros(design.shape[1], dtype=torch.float64)
    for _ in range(100):
        predictor = design @ loc
        mean = torch.exp(predictor) if table.likelihood == "poisson" else torch.sigmoid(predictor)
        curvature = mean if table.likelihood == "poisson" else mean * (1.0 - mean)
        hessian = design.mT @ (curvature[:, None] * design) + torch.diag(precision)
        step = torch.linalg.solve(hessian, design.mT @ (target - mean) - precision * loc)
        loc = loc + step / step.abs().max().clamp(min=1.0)
    return loc, torch.linalg.cholesky(torch.linalg.inv(hessian))
