"""Log masses and KL of distributions on the counts with additional zeros.

A zero-inflated distribution is 0 with the probability `gate`, else a draw of its base
distribution. By the chain rule its KL is that of the event "it is 0", and that of the base
distributions given a positive count. With z the mass at 0, b the mass of the base at 0 and kl the
KL of two Bernoullis,

    KL = kl(z_p, z_q) + (1 - gate_p) [KL(base_p || base_q) - kl(b_p, b_q)]
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .bernoulli import kl_of_logs, log_masses
from .logarithms import log1mexp, logaddexp

#: Logs of gate and of 1 - gate.
Gates = tuple[Tensor, Tensor]


def log_gates(gate: Tensor | None = None, gate_logits: Tensor | None = None) -> Gates:
    """Logs of gate and of 1 - gate, from one of the two parameters."""
    return log_masses(gate, gate_logits)


def log_zero(log_base_zero: Tensor, gates: Gates) -> tuple[Tensor, Tensor]:
    """Logs of the mass at 0 and of the mass elsewhere, from the log of the base's mass at 0.

    The larger mass is computed from the smaller one.
    """
    log_gate, log_open = gates
    log_rest = log_open + log1mexp(log_base_zero)
    # if the rest is 0, its logarithm has no gradient: the sum of the two parts is used there
    mostly_zero = (log_rest < -math.log(2)) & ~torch.isneginf(log_rest)
    from_rest = torch.log1p(-torch.exp(torch.where(mostly_zero, log_rest, -1.0)))
    from_parts = logaddexp(log_gate, log_open + log_base_zero)
    return torch.where(mostly_zero, from_rest, from_parts), log_rest


def log_mass_inflated(k: Tensor, log_base: Tensor, log_base_zero: Tensor, gates: Gates) -> Tensor:
    """Log masses at k, from those of the base distribution and its log mass at 0."""
    at_zero, _ = log_zero(log_base_zero, gates)
    return torch.where(k == 0, at_zero, gates[1] + log_base)


def kl_inflated(
    kl_base: Tensor, p_base_zero: Tensor, q_base_zero: Tensor, p_gates: Gates, q_gates: Gates
) -> Tensor:
    """KL, from that of the base distributions and the logs of their masses at 0."""
    p_zero, p_rest = log_zero(p_base_zero, p_gates)
    q_zero, q_rest = log_zero(q_base_zero, q_gates)
    of_zero = kl_of_logs(p_zero, p_rest, q_zero, q_rest)
    # where both are always 0, q's mass elsewhere has no gradient: the added term, whose value is
    # 0, gives the KL the gradient -d log q(0) by the mass at 0 alone
    always = torch.isneginf(p_rest) & torch.isneginf(q_rest)
    of_zero = of_zero - torch.where(always, torch.expm1(q_zero), 0.0)
    infinite = torch.isinf(kl_base)
    b, c = (torch.where(infinite, -1.0, x) for x in (p_base_zero, q_base_zero))
    of_rest = torch.where(infinite, 0.0, kl_base) - kl_of_logs(b, log1mexp(b), c, log1mexp(c))
    opens = ~torch.isneginf(p_gates[1])
    expected = torch.exp(p_gates[1]) * torch.where(opens & ~infinite, of_rest, 0.0)
    return torch.where(infinite & opens, math.inf, of_zero + expected)
