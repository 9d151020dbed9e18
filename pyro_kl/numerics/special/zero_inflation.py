"""Distributions on the counts with an extra atom at 0, which opens into a base distribution with 1
- gate.

Such a distribution draws whether it is zero, then what it is if not: that second part is the base
distribution's, whatever the gate. With alpha the mass at 0, b that of the base, and kl the KL of
two flips,

    KL = kl(alpha_p, alpha_q) + (1 - gate_p) [KL(base_p || base_q) - kl(b_p, b_q)]
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .bernoulli import kl_of_logs, log_masses
from .logarithms import log1mexp, logaddexp

Gates = tuple[Tensor, Tensor]


def log_gates(gate: Tensor | None = None, gate_logits: Tensor | None = None) -> Gates:
    """Log of gate and of 1 - gate."""
    return log_masses(gate, gate_logits)


def log_zero(log_b: Tensor, gates: Gates) -> tuple[Tensor, Tensor]:
    """Log of the mass at 0, and of the mass elsewhere, the base's log mass at 0 given.

    The larger of the two comes from the smaller.
    """
    log_gate, log_open = gates
    log_rest = log_open + log1mexp(log_b)
    # no rest, no slope of its logarithm: that of the parts is there
    mostly_zero = (log_rest < -math.log(2)) & ~torch.isneginf(log_rest)
    from_rest = torch.log1p(-torch.exp(torch.where(mostly_zero, log_rest, -1.0)))
    from_parts = logaddexp(log_gate, log_open + log_b)
    return torch.where(mostly_zero, from_rest, from_parts), log_rest


def log_mass_inflated(
    k: Tensor, log_base: Tensor, log_b: Tensor, log_gate: Tensor, log_open: Tensor
) -> Tensor:
    """Log masses at k, from those of the base distribution and its mass at 0."""
    at_zero, _ = log_zero(log_b, (log_gate, log_open))
    return torch.where(k == 0, at_zero, log_open + log_base)


def kl_inflated(
    base: Tensor, log_b: Tensor, log_c: Tensor, p_gates: Gates, q_gates: Gates
) -> Tensor:
    """KL, from that of the bases and their log masses at 0, p's and q's."""
    (p_zero, p_rest), (q_zero, q_rest) = log_zero(log_b, p_gates), log_zero(log_c, q_gates)
    flips = kl_of_logs(p_zero, p_rest, q_zero, q_rest)
    # where both are always 0, q's rest is no part of the sum, and its slope is that of its zero
    never = torch.isneginf(p_rest) & torch.isneginf(q_rest)
    flips = flips - torch.where(never, torch.expm1(q_zero), 0.0)
    infinite = torch.isinf(base)
    b, c = torch.where(infinite, -1.0, log_b), torch.where(infinite, -1.0, log_c)
    beyond = torch.where(infinite, 0.0, base) - kl_of_logs(b, log1mexp(b), c, log1mexp(c))
    opens = ~torch.isneginf(p_gates[1])
    opened = torch.exp(p_gates[1]) * torch.where(opens & ~infinite, beyond, 0.0)
    return torch.where(infinite & opens, math.inf, flips + opened)
