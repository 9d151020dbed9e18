"""Llama 2's reward: gate two reward models, undo the sigmoid, whiten, and only then penalise.

Touvron and others (2023), "Llama 2: Open Foundation and Fine-Tuned Chat Models", section 3.2.3:

    R_c = R_s if the prompt is a safety prompt or R_s < 0.15, else R_h
    R   = whiten(logit(R_c)) - beta KL(pi || pi_0)

The paper leaves open which statistics whiten, the divisor of the variance and what a reward of
exactly 0 or 1 becomes; these are options here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from ..messages import see
from ..numerics.concrete import is_traced
from .checks import check_beta, check_broadcast, check_mask, first, position

#: Weight of the KL in Llama 2, by the number of parameters (Touvron and others 2023, 3.2.3).
LLAMA2_BETA: Mapping[str, float] = MappingProxyType(
    {"7B": 0.01, "13B": 0.01, "34B": 0.005, "70B": 0.005}
)


def gate(
    safety: Tensor, helpfulness: Tensor, is_safety: Tensor, threshold: float = 0.15
) -> Tensor:
    """The safety reward where the prompt asks for it or the answer is unsafe, else helpfulness.

    Args:
        safety: R_s, probabilities (after the sigmoid), of any shape.
        helpfulness: R_h, on the same scale.
        is_safety: True where the prompt is a safety prompt.
        threshold: an answer with R_s strictly below it is judged by its safety; 0.15 in the paper,
            where it had a precision of 0.89 and a recall of 0.55.

    Returns:
        R_c, of the broadcast shape. It jumps where R_s crosses the threshold.

    Raises:
        ValueError: a reward outside [0, 1], shapes that do not broadcast, flags that are no
            booleans, a threshold outside [0, 1].

    Example:
        >>> safety, helpfulness = torch.tensor([0.1, 0.9, 0.9]), torch.tensor([0.8, 0.8, 0.8])
        >>> pyro_kl.policy.gate(safety, helpfulness, torch.tensor([False, False, True]))
        tensor([0.1000, 0.8000, 0.9000])
    """
    check_broadcast(
        "safety, helpfulness and is_safety", safety.shape, helpfulness.shape, is_safety.shape
    )
    if is_safety.dtype != torch.bool:
        raise ValueError(f"is_safety must be boolean, got {is_safety.dtype}" + see("rewards"))
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be a probability, got {threshold}" + see("option"))
    _check_probability("safety reward", safety)
    _check_probability("helpfulness reward", helpfulness)
    # the threshold is rounded to the precision of the rewards
    return torch.where(is_safety | (safety < threshold), safety, helpfulness)


def logit(reward: Tensor, clamp: float | None = None) -> Tensor:
    """Undo a reward model's sigmoid: log(R / (1 - R)), finite also at 0 and 1.

    A sigmoid is 0 or 1 by rounding only: the score of such a reward is beyond some bound, and the
    reward does not say how far.

    Args:
        reward: probabilities, any shape.
        clamp: rewards are first moved into [clamp, 1 - clamp]. The default is half the spacing of
            floats below 1: scores beyond +-16.6 in float32 (+-36.7 in float64, +-5.5 in bfloat16),
            where the sigmoid rounds to 1, become that score.

    Returns:
        The linear score, same shape and dtype.

    Raises:
        ValueError: a reward outside [0, 1] or nan, with its position; clamp outside (0, 1/2).
    """
    _check_probability("reward", reward)
    # 1 - R has the fewest digits: below half the spacing of floats it rounds to 0
    least = torch.finfo(reward.dtype).eps / 2 if clamp is None else clamp
    if not 0 < least < 0.5:
        raise ValueError(f"clamp must be between 0 and 1/2, got {clamp}" + see("option"))
    wide = reward.double().clamp(least, 1 - least)
    return (wide.log() - torch.log1p(-wide)).to(reward.dtype)


def _check_probability(name: str, reward: Tensor) -> None:
    if not reward.is_floating_point():
        raise ValueError(f"the {name} must be floating point, got {reward.dtype}" + see("rewards"))
    if is_traced():
        return
    bad = ~((reward >= 0) & (reward <= 1))
    if bool(bad.any()):
        where = first(bad)
        at = f" at {position(where)}" if where else ""
        raise ValueError(
            f"the {name}{at} is {float(reward[where]):g}, no probability: outside [0, 1]; "
            "a reward model's linear score goes through torch.sigmoid first, or straight to whiten"
            + see("rewards")
        )


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of some rewards, for whitening.

    Attributes:
        count: the number of rewards.
        mean: their mean.
        squares: the sum of their squared deviations from the mean.
    """

    count: int
    mean: float
    squares: float

    def merge(self, other: Moments) -> Moments:
        """The moments of both together (Chan, Golub and LeVeque 1983): running statistics."""
        count = self.count + other.count
        step = other.mean - self.mean
        return Moments(
            count,
            self.mean + step * other.count / count,
            self.squares + other.squares + step**2 * self.count * other.count / count,
        )

    def variance(self, correction: int = 0) -> float:
        """The squares divided by count - correction; 0 for a single reward."""
        return self.squares / max(1, self.count - correction)


def moments(rewards: Tensor, mask: Tensor | None = None) -> Moments:
    """The moments of a batch of rewards, over all its elements where the mask is True.

    Args:
        rewards: any shape.
        mask: True where a reward counts; by default all count.

    Returns:
        Count, mean and squared deviations, in float64.

    Raises:
        ValueError: no reward at all, a mask that hides everything, a reward that is not finite.
    """
    if mask is not None:
        check_mask(mask, rewards.shape)
        rewards = rewards[mask.expand(rewards.shape)]
    values = rewards.detach().double().reshape(-1)
    if values.numel() == 0:
        raise ValueError("there is no reward to take the moments of" + see("rewards"))
    if not bool(values.isfinite().all()):
        raise ValueError(
            f"the reward at {position(first(~values.isfinite()))} of those that count is "
            f"{float(values[~values.isfinite()][0])}: only finite rewards can be whitened"
            + see("rewards")
        )
    # around one of them, so that a constant batch has a variance of exactly 0
    around = values - values[0]
    shift = around.mean()
    squares = (around - shift).square().sum()
    return Moments(values.numel(), float(values[0] + shift), float(squares))


def whiten(
    rewards: Tensor,
    statistics: Moments | None = None,
    *,
    mask: Tensor | None = None,
    correction: int = 0,
) -> Tensor:
    """Shift and scale rewards to mean 0 and variance 1.

    Three ways to choose the statistics, all explicit:

    - *batch*: `whiten(rewards)`. What the same answer earns depends on the batch it is in.
    - *running*: `seen = seen.merge(moments(rewards))`, then `whiten(rewards, seen)`.
    - *frozen*: `whiten(rewards, seen)` with `seen` of a calibration run. Only then is the reward
      a function of the answer, and the optimum pi_0 exp(R / beta) / Z a fixed distribution.

    Whiten before the KL is subtracted, as in the paper: dividing R - beta KL by a standard
    deviation s penalises with beta / s instead.

    Args:
        rewards: linear scores (see `logit`), any shape.
        statistics: moments to whiten with; by default those of this batch.
        mask: True where a reward counts; the others become 0.
        correction: 1 divides the squares by n - 1, 0 (the default) by n.

    Returns:
        Same shape and dtype. A batch of one value, or of one element, becomes 0.

    Raises:
        ValueError: a reward that is not finite, a mask that hides everything, statistics of
            variance 0 for rewards that are not their mean.
    """
    batch = moments(rewards, mask)
    used = batch if statistics is None else statistics
    variance = used.variance(correction)
    centred = rewards.double() - used.mean
    if mask is not None:
        centred = torch.where(mask, centred, 0.0)
    if variance > 0:
        return (centred / math.sqrt(variance)).to(rewards.dtype)
    if batch.squares > 0 or not math.isclose(batch.mean, used.mean, rel_tol=1e-12):
        raise ValueError(
            f"the statistics are those of a constant reward {used.mean:g} (variance 0) and these "
            "rewards differ from it: there is no scale to whiten them with" + see("rewards")
        )
    return torch.zeros_like(rewards)


def llama2_reward(
    safety: Tensor,
    helpfulness: Tensor,
    is_safety: Tensor,
    statistics: Moments | None = None,
    *,
    threshold: float = 0.15,
    clamp: float | None = None,
) -> Tensor:
    """whiten(logit(gate(R_s, R_h))), the reward before the penalty.

    Args:
        safety: as in `gate`.
        helpfulness: as in `gate`.
        is_safety: as in `gate`.
        statistics: as in `whiten`.
        threshold: as in `gate`.
        clamp: as in `logit`.

    Returns:
        Whitened linear scores, of the broadcast shape.

    Raises:
        ValueError: as the three functions.

    Reference:
        Touvron and others (2023), "Llama 2: Open Foundation and Fine-Tuned Chat Models", section
        3.2.3.

    Example:
        >>> safety, helpfulness = torch.tensor([0.1, 0.9, 0.9]), torch.tensor([0.8, 0.8, 0.3])
        >>> reward = pyro_kl.policy.llama2_reward(safety, helpfulness, torch.tensor(False))
        >>> reward.mean().abs() < 1e-6, reward.var(correction=0)
        (tensor(True), tensor(1.))
    """
    gated = gate(safety, helpfulness, is_safety, threshold)
    return whiten(logit(gated, clamp), statistics)


def penalised_reward(
    reward: Tensor,
    penalty: Tensor,
    beta: float | Tensor,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Reward minus beta times the penalty, per sequence or per token.

    Args:
        reward: one (whitened) reward per sequence, shape ``(...)``.
        penalty: nats, detached (`penalty(..., use="reward")`): shape ``(...)`` for one number per
            sequence, or ``(..., T)`` for one per token.
        beta: weight of the KL; a number, or a tensor that broadcasts with the reward.
        mask: for a penalty per token, True where a token counts. The reward is paid at the last
            such token.

    Returns:
        Of the penalty's shape. Per token, the sum over the tokens is reward - beta sum(penalty).

    Raises:
        ValueError: beta negative or not finite; shapes that do not fit; a sequence without a
            token; a penalty that carries a gradient.
    """
    check_beta(beta)
    if penalty.requires_grad:
        raise ValueError(
            "a penalty in the reward carries no gradient: take penalty(..., use='reward'), which "
            "is detached, or add beta * penalty(..., use='loss') to the loss instead"
            + see("penalty-use")
        )
    weight = torch.as_tensor(beta, dtype=reward.dtype, device=reward.device)
    if penalty.dim() == reward.dim():
        if mask is not None:
            raise ValueError(
                "a mask is for a penalty per token; this one is per sequence"
                + see("policy-shapes")
            )
        check_broadcast("reward and penalty", reward.shape, penalty.shape)
        return reward - weight * penalty
    if penalty.shape[:-1] != reward.shape:
        raise ValueError(
            f"a penalty of shape {tuple(penalty.shape)} is neither one per sequence nor one per "
            f"token for rewards of shape {tuple(reward.shape)}" + see("policy-shapes")
        )
    counts = torch.ones_like(penalty, dtype=torch.bool) if mask is None else mask
    check_mask(counts, penalty.shape)
    counts = counts.expand(penalty.shape)
    if not is_traced() and not bool(counts.any(-1).all()):
        where = position(first(~counts.any(-1)))
        raise ValueError(
            f"the mask hides every token of the sequence at {where}" + see("policy-shapes")
        )
    order = torch.arange(1, penalty.shape[-1] + 1, device=penalty.device)
    last = torch.where(counts, order, 0).argmax(-1, keepdim=True)
    tokens = -weight.unsqueeze(-1) * torch.where(counts, penalty, 0.0)
    return tokens.scatter_add(-1, last, reward.unsqueeze(-1).to(tokens.dtype))
