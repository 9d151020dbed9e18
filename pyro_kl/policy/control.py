"""Beta while a policy is trained: a constant, or a controller that holds the KL at a target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from ..messages import see
from ..registry.warnings import warn
from .checks import check_beta, check_mask

Granularity = Literal["sequence sum", "token mean"]
GRANULARITIES: tuple[Granularity, ...] = ("sequence sum", "token mean")


def aggregate(token_kl: Tensor, granularity: Granularity, mask: Tensor | None = None) -> float:
    """One number of nats from the KL of every token.

    Args:
        token_kl: nats, shape ``(..., T)``.
        granularity: "sequence sum", the mean over sequences of their sums (Ziegler and others
            2019, trlx), or "token mean", the mean over all tokens (verl, OpenRLHF). The two differ
            by a factor of the sequence length.
        mask: True where a token counts, shape ``(..., T)``.

    Returns:
        Nats, as a float.

    Raises:
        ValueError: unknown granularity, a mask that hides everything.
    """
    if granularity not in GRANULARITIES:
        raise ValueError(
            f"granularity must be one of {GRANULARITIES}, got {granularity!r}" + see("option")
        )
    counts = torch.ones_like(token_kl, dtype=torch.bool) if mask is None else mask
    check_mask(counts, token_kl.shape)
    counts = counts.expand(token_kl.shape)
    total = torch.where(counts, token_kl.detach().double(), 0.0).sum()
    parts = counts.sum() if granularity == "token mean" else counts.any(-1).sum()
    return float(total / parts)


class Controller(Protocol):
    """An object with a beta that it changes by the KL of each batch."""

    beta: float

    def step(self, kl: float, num_steps: int) -> float:
        """Change beta by a KL in nats, of `num_steps` more episodes; return the new beta."""
        ...

    def update(self, token_kl: Tensor, mask: Tensor | None = None) -> float:
        """Do a `step` of a batch from the KL of every token, shape ``(batch, T)``."""
        ...


@dataclass
class FixedBeta:
    """A constant beta.

    Args:
        beta: weight of the KL, at least 0.
    """

    beta: float

    def __post_init__(self) -> None:
        check_beta(self.beta)

    def step(self, kl: float, num_steps: int) -> float:
        """Return beta."""
        return self.beta

    def update(self, token_kl: Tensor, mask: Tensor | None = None) -> float:
        """Return beta."""
        return self.beta


@dataclass
class AdaptiveBeta:
    """Proportional control of log beta: up where the KL is above its target, down below.

        e = clip(KL / target - 1, -clip, clip);   beta <- beta max(0, 1 + e num_steps / horizon)

    The published update makes beta negative if more than horizon / clip episodes pass in one step.
    Here beta stops at 0, with a warning in advance, because no factor changes a beta of 0.

    Args:
        beta: the first beta, at least 0; a beta of 0 stays 0.
        target: the KL to hold, in nats, positive, of the granularity given.
        horizon: episodes over which beta can change by a factor of about e**clip, positive.
        clip: the largest relative error e.
        granularity: of the KL that `update` computes from the tokens' and that `step` is given.

    Raises:
        ValueError: a negative beta; a target, horizon or clip that is not positive; an unknown
            granularity.

    Reference:
        Ziegler and others (2019), "Fine-Tuning Language Models from Human Preferences", section
        2.2, and its code.

    Example:
        >>> controller = pyro_kl.policy.AdaptiveBeta(0.2, target=6.0, horizon=10_000)
        >>> round(controller.step(kl=12.0, num_steps=256), 6)
        0.201024
    """

    beta: float
    target: float
    horizon: float
    clip: float = 0.2
    granularity: Granularity = "sequence sum"

    def __post_init__(self) -> None:
        check_beta(self.beta)
        for name in ("target", "horizon", "clip"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(
                    f"{name} must be positive and finite, got {value}" + see("option")
                )
        if self.granularity not in GRANULARITIES:
            raise ValueError(
                f"granularity must be one of {GRANULARITIES}, got {self.granularity!r}"
                + see("option")
            )

    def step(self, kl: float, num_steps: int) -> float:
        """Change beta by a KL in nats, of the controller's granularity.

        Args:
            kl: may be negative, as a sampled k1 may.
            num_steps: episodes since the last step (the batch size).

        Returns:
            The new beta.

        Raises:
            ValueError: a KL that is not finite; fewer than one episode.
        """
        if not math.isfinite(kl):
            raise ValueError(
                f"the KL is {kl}: a controller cannot act on it" + see("kl-controller")
            )
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}" + see("option"))
        if self.clip * num_steps >= self.horizon:
            warn(
                f"{num_steps} episodes in one step and a horizon of {self.horizon:g} can take "
                "beta to 0, from where it does not return; raise the horizon above "
                f"{self.clip * num_steps:g}" + see("kl-controller"),
            )
        error = min(max(kl / self.target - 1, -self.clip), self.clip)
        self.beta *= max(0.0, 1 + error * num_steps / self.horizon)
        return self.beta

    def update(self, token_kl: Tensor, mask: Tensor | None = None) -> float:
        """Aggregate the KL of every token, shape ``(batch, T)``, and do a `step` of a batch."""
        episodes = token_kl[..., 0].numel()
        return self.step(aggregate(token_kl, self.granularity, mask), episodes)
