"""Quadrature rules with a fixed number of nodes, and the sum of a KL over the nodes of a rule."""

from __future__ import annotations

import torch
from torch import Tensor

from ..special.logarithms import expm1mx
from ..special.series import gauss_legendre, on_unit_interval


def panel(count: int, low: float = 0.0, high: float = 1.0) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the Gauss-Legendre rule on [low, high], in float64 on the CPU."""
    nodes, weights = on_unit_interval(gauss_legendre(count), torch.zeros((), dtype=torch.float64))
    return low + (high - low) * nodes, (high - low) * weights


def equal_steps(low: Tensor, high: Tensor | float, count: int) -> tuple[Tensor, Tensor]:
    """The trapezoidal rule from low to high: nodes along a new last dimension, and the step.

    An integrand that vanishes at both ends needs no smaller weight there. The ends are constants:
    no gradient goes through them.
    """
    steps = torch.arange(count, dtype=low.dtype, device=low.device)
    step = ((high - low) / (count - 1)).detach()
    return low.detach().unsqueeze(-1) + step.unsqueeze(-1) * steps, step


def kl_at_nodes(mass: Tensor, log_ratio: Tensor) -> Tensor:
    """The sum of mass * log_ratio over the last dimension, log_ratio being log p - log q.

    If p is close to q at all nodes, q - p is added to each term, whose sum is 0 for a rule that
    resolves both densities: the terms are then positive and of second order.
    """
    is_near = log_ratio.abs().amax(-1, keepdim=True) < 1
    close = expm1mx(-torch.where(is_near, log_ratio, 0.0))
    return (mass * torch.where(is_near, close, log_ratio)).sum(-1)
