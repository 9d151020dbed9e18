"""Categorical(logits=eta): a lower bound, for independent Normal logits along the last dimension.

For all weights a, with mu = sum_j a_j eta_j and Jensen's inequality after taking it out,

    E log sum_k exp(eta_k) <= sum_j a_j^2 v_j / 2 + log sum_k exp(loc_k + (1 - 2 a_k) v_k / 2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical

from ..messages import see
from .likelihood import Expectation, Likelihood, is_count

# The best weights are a = softmax(loc + (1 - 2 a) v / 2). Every a gives a bound; after these
# damped steps it is within 1e-4 nats of the best one for scales up to 3.
_STEPS = 8


def _bound(y: Tensor, loc: Tensor, variance: Tensor) -> Tensor:
    step = 1 / (1 + variance.amax(-1, keepdim=True) / 4)
    a = torch.softmax(loc, -1)
    for _ in range(_STEPS):
        a = a + step * (torch.softmax(loc + (0.5 - a) * variance, -1) - a)
    tilted = torch.logsumexp(loc + (0.5 - a) * variance, -1)
    own = loc.gather(-1, y.long().unsqueeze(-1)).squeeze(-1)
    return own - (a.square() * variance).sum(-1) / 2 - tilted


def expected(y: Tensor, loc: Tensor, scale: Tensor) -> Expectation:
    """The bound of a row, with the slope and the curvature of each of its logits.

    The curvature is -2 times the derivative of the bound in scale^2.
    """
    if torch.is_grad_enabled() and (loc.requires_grad or scale.requires_grad):
        m, v, graph = loc, scale.square(), True
    else:
        m, v, graph = (
            loc.detach().requires_grad_(),
            scale.detach().square().requires_grad_(),
            False,
        )
    with torch.enable_grad():
        value = _bound(y, m, v)
        slope, by_variance = torch.autograd.grad(value.sum(), (m, v), create_graph=graph)
    return Expectation(value if graph else value.detach(), slope, -2 * by_variance)


def higher(y: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    raise NotImplementedError(
        "Categorical has a bound for vectors of logits: its third and fourth derivatives are "
        "tensors of all logits, which nothing here uses." + see("expected-log-likelihood")
    )


def predict(loc: Tensor, scale: Tensor) -> Tensor:
    raise NotImplementedError(
        "E softmax of Normal logits has no formula: average torch.softmax over draws."
        + see("expected-log-likelihood")
    )


def is_possible(y: Tensor, loc: Tensor) -> Tensor:
    return is_count(y, loc) & (y < loc.shape[-1])


def log_likelihood(mp: Any, y: Any, eta: Any) -> Any:
    return eta[int(y)] - mp.log(mp.fsum(mp.exp(x) for x in eta))


CATEGORICAL = Likelihood(
    name="categorical",
    distribution=Categorical,
    link="softmax",
    method="bound",
    reference="Knowles & Minka (2011), NeurIPS 24, section 5: the tilted bound; Saul, Jaakkola & "
    "Jordan (1996), JAIR 4",
    expected=expected,
    higher=higher,
    predict=predict,
    error=None,
    is_possible=is_possible,
    possible="0, 1, ..., the number of logits - 1",
    log_likelihood=log_likelihood,
    examples=({"y": 0.0}, {"y": 2.0}),
    event_dim=1,
)
