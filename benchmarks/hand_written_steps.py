"""A step of SVI as it is written by hand in torch: draw, exact KL, autograd, a fused Adam.

Each function takes a problem of models/problems.py and returns the function that makes a step.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import binary_cross_entropy_with_logits


def kl_to_standard_normal(loc, log_scale):
    """KL(Normal(loc, exp(log_scale)) || Normal(0, 1)), summed, in nats."""
    second_moment = loc.square() + (2.0 * log_scale).exp()
    return 0.5 * (second_moment - 1.0).sum() - log_scale.sum()


def stepper(lr, negative_log_likelihood, loc, log_scale):
    """The step of a model of one vector of coefficients whose prior is standard Normal."""
    loc.requires_grad_()
    log_scale.requires_grad_()
    optimizer = torch.optim.Adam([loc, log_scale], lr=lr, fused=True)

    def step(*batch):
        optimizer.zero_grad()
        w = loc + log_scale.exp() * torch.randn_like(loc)
        loss = negative_log_likelihood(w, *batch) + kl_to_standard_normal(loc, log_scale)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def logistic_regression(problem):
    rows = sum(len(y) for _, y in problem.batches)
    dim = problem.batches[0][0].shape[1]

    def negative_log_likelihood(w, x, y):
        return binary_cross_entropy_with_logits(x @ w, y, reduction="sum") * (rows / len(y))

    start = torch.zeros(dim), torch.full((dim,), math.log(0.1))
    return stepper(problem.lr, negative_log_likelihood, *start)


def fifty_sites(problem):
    ((x, y),) = problem.batches
    constant = 0.5 * math.log(2.0 * math.pi) * len(y)

    def negative_log_likelihood(w, x, y):
        return 0.5 * (y - x @ w[:, 0]).square().sum() + constant

    start = torch.zeros(x.shape[1], 2), torch.zeros(x.shape[1], 2)
    return stepper(problem.lr, negative_log_likelihood, *start)


#: By the names of models/problems.py. The others are too long to be written by hand.
HAND_WRITTEN = {
    "breast cancer": logistic_regression,
    "50 sites": fifty_sites,
    "minibatches of 1,000": logistic_regression,
}
