"""The KL-penalised policy as variational inference in Pyro.

    J(pi) = E_pi[R(y)] - beta KL(pi || pi_0) = beta ELBO

The model's prior is the reference policy pi_0 and its log likelihood the reward over beta, a
``pyro.factor``; the guide is the policy pi; the posterior is the optimum
pi* = pi_0 exp(R / beta) / Z and the evidence log Z. Two kinds of policy, each with one answer per
prompt:

- `CategoricalPolicy`: a table of answers; the ELBO can be summed exactly.
- `NormalPolicy`: an action on the line, the integral form of the same formula; with a quadratic
  reward the optimum is a Normal, too.

Sources: Levine (2018), arXiv 1805.00909; Korbak, Perez and Buckley (2022), arXiv 2205.11275.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import ELBO, TraceEnum_ELBO, TraceMeanField_ELBO, config_enumerate
from pyro.nn import PyroModule
from torch import Tensor

import pyro_kl

__all__ = ["CategoricalPolicy", "NormalPolicy", "exact_loss", "kl_elbo"]


def kl_elbo(num_particles: int = 1) -> ELBO:
    """The ELBO whose KL is exact: pyro_kl's where it is there, else Pyro's for mean fields."""
    kind = getattr(pyro_kl, "TraceKL_ELBO", TraceMeanField_ELBO)
    return kind(num_particles=num_particles)


def exact_loss(policy: CategoricalPolicy) -> Tensor:
    """Minus the ELBO, by summing over every answer: differentiable, no sampling at all."""
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    return elbo.differentiable_loss(policy.model, config_enumerate(policy.guide))


def _checked(beta: float) -> float:
    if not (beta > 0 and math.isfinite(beta)):
        raise ValueError(
            f"beta must be positive and finite, got {beta}: the log likelihood is R / beta"
        )
    return beta


class CategoricalPolicy(PyroModule):
    """A policy over K answers for each of C prompts; `model` and `guide` go to Pyro.

    Args:
        reference_logits: log pi_0, shape ``(C, K)``.
        reward: R of every answer to every prompt, shape ``(C, K)``; frozen whitening, so that
            the optimum is a fixed distribution (see `pyro_kl.policy.whiten`).
        beta: weight of the KL, positive.
    """

    def __init__(self, reference_logits: Tensor, reward: Tensor, beta: float) -> None:
        super().__init__()
        if reference_logits.shape != reward.shape or reward.dim() != 2:
            raise ValueError(
                "reference_logits and reward must both be (prompts, answers), got shapes "
                f"{tuple(reference_logits.shape)} and {tuple(reward.shape)}"
            )
        self.beta = _checked(beta)
        self.reference_logits: Tensor
        self.reward: Tensor
        self.register_buffer("reference_logits", reference_logits)
        self.register_buffer("reward", reward)
        self.logits = torch.nn.Parameter(reference_logits.clone())

    def model(self) -> None:
        """The reference policy answers, and the answer is rewarded."""
        prompts = torch.arange(self.reward.shape[0])
        with pyro.plate("prompts", len(prompts), dim=-1):
            y = pyro.sample("answer", dist.Categorical(logits=self.reference_logits))
            pyro.factor("reward", self.reward[prompts, y] / self.beta)

    def guide(self) -> None:
        """The policy answers."""
        with pyro.plate("prompts", self.reward.shape[0], dim=-1):
            pyro.sample("answer", dist.Categorical(logits=self.logits))

    def objective(self) -> Tensor:
        """J of every prompt, in units of the reward, shape ``(C,)``."""
        return pyro_kl.policy.objective(self.logits, self.reference_logits, self.reward, self.beta)

    def optimum(self) -> tuple[Tensor, Tensor]:
        """Log pi*, shape ``(C, K)``, and log Z, shape ``(C,)``."""
        return pyro_kl.policy.optimum(self.reference_logits, self.reward, self.beta)


class NormalPolicy(PyroModule):
    """A Normal policy over actions on the line, with reward -curvature (a - target)^2 / 2.

    Args:
        reference_loc: mean of pi_0 for each prompt, shape ``(C,)``.
        reference_scale: its standard deviation, shape ``(C,)``.
        target: the action of most reward, shape ``(C,)``.
        curvature: how fast the reward falls off, positive.
        beta: weight of the KL, positive.
    """

    def __init__(
        self,
        reference_loc: Tensor,
        reference_scale: Tensor,
        target: Tensor,
        curvature: float,
        beta: float,
    ) -> None:
        super().__init__()
        self.beta, self.curvature = _checked(beta), curvature
        self.reference_loc: Tensor
        self.reference_scale: Tensor
        self.target: Tensor
        for name, value in (
            ("reference_loc", reference_loc),
            ("reference_scale", reference_scale),
            ("target", target),
        ):
            self.register_buffer(name, value)
        self.loc = torch.nn.Parameter(reference_loc.clone())
        self.log_scale = torch.nn.Parameter(reference_scale.log())

    def reward(self, action: Tensor) -> Tensor:
        """The reward of an action."""
        return -0.5 * self.curvature * (action - self.target).square()

    def model(self) -> None:
        """The reference policy acts, and the action is rewarded."""
        with pyro.plate("prompts", len(self.target), dim=-1):
            reference = dist.Normal(self.reference_loc, self.reference_scale)
            action = pyro.sample("action", reference)
            pyro.factor("reward", self.reward(action) / self.beta)

    def guide(self) -> None:
        """The policy acts."""
        with pyro.plate("prompts", len(self.target), dim=-1):
            pyro.sample("action", self.policy())

    def policy(self) -> dist.Normal:
        """The policy pi."""
        return dist.Normal(self.loc, self.log_scale.exp())

    def objective(self) -> Tensor:
        """J of every prompt: the integral of the reward in closed form, the KL exactly."""
        pi = self.policy()
        second = (pi.mean - self.target).square() + pi.variance
        reference = dist.Normal(self.reference_loc, self.reference_scale)
        kl = torch.distributions.kl_divergence(pi, reference)
        return -0.5 * self.curvature * second - self.beta * kl

    def optimum(self) -> tuple[dist.Normal, Tensor]:
        """Pi* and log Z: the posterior of a Normal prior under a Normal likelihood."""
        prior = self.reference_scale.reciprocal().square()
        precision = prior + self.curvature / self.beta
        weighted = prior * self.reference_loc + self.target * self.curvature / self.beta
        star = dist.Normal(weighted / precision, precision.rsqrt())
        spread = self.beta / self.curvature + self.reference_scale.square()
        distance = (self.reference_loc - self.target).square() / spread
        log_z = -0.5 * (distance + torch.log(spread * self.curvature / self.beta))
        return star, log_z
