"""The KL-penalised objective over finitely many answers, and its maximiser.

    J(pi) = E_pi[R] - beta KL(pi || pi_0) = beta log Z - beta KL(pi || pi*),
    pi* = pi_0 exp(R / beta) / Z,  Z = E_{pi_0}[exp(R / beta)].

J / beta is an ELBO: prior pi_0, log likelihood R / beta, posterior pi*, evidence log Z (Levine
2018, arXiv 1805.00909; Korbak, Perez and Buckley 2022, arXiv 2205.11275).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..messages import see
from .checks import check_beta, check_broadcast
from .vocabulary import exact_kl


def objective(
    policy_logits: Tensor, reference_logits: Tensor, reward: Tensor, beta: float
) -> Tensor:
    """J(pi) = E_pi[R] - beta KL(pi || pi_0), by summing over all answers.

    Args:
        policy_logits: pi over K answers, shape ``(..., K)``, normalised or not.
        reference_logits: pi_0, likewise.
        reward: R of every answer, shape ``(..., K)``.
        beta: weight of the KL, at least 0.

    Returns:
        In units of the reward, shape ``(...)``; differentiable.

    Raises:
        ValueError: as `exact_kl`; beta negative.
    """
    check_beta(beta)
    _check_reward(reference_logits, reward)
    expected = (policy_logits.softmax(-1) * reward).sum(-1)
    return expected - beta * exact_kl(policy_logits, reference_logits)


def optimum(reference_logits: Tensor, reward: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The maximiser of J, log pi*, and log Z; the maximum is beta log Z.

    Args:
        reference_logits: pi_0 over K answers, shape ``(..., K)``.
        reward: R of every answer, shape ``(..., K)``.
        beta: weight of the KL, positive (without a penalty the maximiser is the best answer).

    Returns:
        log pi*, shape ``(..., K)``, and log Z in nats, shape ``(...)``.

    Raises:
        ValueError: beta not positive; shapes that do not fit.

    Example:
        >>> reference, reward = torch.zeros(2), torch.tensor([0.0, 1.0])
        >>> log_policy, log_z = pyro_kl.policy.optimum(reference, reward, beta=1.0)
        >>> log_policy.exp(), log_z
        (tensor([0.2689, 0.7311]), tensor(0.6201))
    """
    _check_positive(beta)
    _check_reward(reference_logits, reward)
    tilted = reference_logits.log_softmax(-1) + reward / beta
    log_z = tilted.logsumexp(-1)
    return tilted - log_z.unsqueeze(-1), log_z


def forward_optimum(reference_logits: Tensor, reward: Tensor, beta: float) -> Tensor:
    """The maximiser of E_pi[R] - beta KL(pi_0 || pi), with the KL in the other direction.

    It is beta pi_0 / (lambda - R), with lambda such that it sums to one. It falls off with the
    reward as a power and not exponentially, and is no posterior. lambda - max R is found by
    Newton's method from below, where the sum is convex and the steps cannot overshoot.

    Args:
        reference_logits: pi_0 over K answers, shape ``(..., K)``.
        reward: R of every answer, shape ``(..., K)``.
        beta: weight of the KL, positive.

    Returns:
        The logarithm of the maximiser, shape ``(..., K)``.

    Raises:
        ValueError: beta not positive; shapes that do not fit.

    Example:
        >>> reference, reward = torch.zeros(2), torch.tensor([0.0, 1.0])
        >>> pyro_kl.policy.forward_optimum(reference, reward, beta=0.2).exp()
        tensor([0.0901, 0.9099])
        >>> pyro_kl.policy.optimum(reference, reward, beta=0.2)[0].exp()
        tensor([0.0067, 0.9933])
    """
    _check_positive(beta)
    _check_reward(reference_logits, reward)
    log_reference = reference_logits.double().log_softmax(-1)
    possible = log_reference > -math.inf
    worth = torch.where(possible, reward.double(), -math.inf)
    top = worth.amax(-1, keepdim=True)
    gap = torch.where(possible, top - worth, math.inf)
    mass = beta * log_reference.exp()
    above = (mass - gap).amax(-1, keepdim=True)  # the sum is at least 1 there
    for _ in range(64):  # the convergence is quadratic: a dozen steps from the lower end
        terms = mass / (above + gap)
        slope = (terms / (above + gap)).sum(-1, keepdim=True)
        above = above + (terms.sum(-1, keepdim=True) - 1) / slope
    return (mass / (above + gap)).log().to(reference_logits.dtype)


def _check_positive(beta: float) -> None:
    check_beta(beta)
    if beta == 0:
        raise ValueError(
            "beta is 0: without a penalty the optimum is the answer of largest reward"
            + see("option")
        )


def _check_reward(reference_logits: Tensor, reward: Tensor) -> None:
    check_broadcast("the reference's logits and the rewards", reference_logits.shape, reward.shape)
    if reference_logits.shape[-1:] != reward.shape[-1:]:
        raise ValueError(
            f"one reward for each answer is needed: {reference_logits.shape[-1]} answers and "
            f"rewards of shape {tuple(reward.shape)}" + see("policy-shapes")
        )
