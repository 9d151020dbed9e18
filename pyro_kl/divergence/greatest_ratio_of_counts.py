"""Renyi's divergence of infinite order of counts: the upper bound of log p - log q."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..messages import see
from ..registry.integrate_counts import Count, PoissonCount
from .discrete import Discrete


def greatest_ratio_of_counts(p: Discrete, q: Discrete) -> Tensor:
    """The largest log p - log q over the atoms of p, or its limit.

    Raises:
        NotImplementedError: p has infinitely many atoms, and how it falls is not declared.
    """
    if p.num_atoms is not None:
        n = max(p.num_atoms, q.num_atoms or 0)
        return _largest_of(p.log_masses(n), q.log_masses(n))
    a, b = p.as_count, q.as_count
    if a is None or (b is None and q.num_atoms is None):
        raise NotImplementedError(
            "the supremum of log p/q over all counts has no formula" + see("no-integral")
        )
    beyond = a.mean > 0
    if a.gates is not None:
        beyond = beyond & (a.gates[1] > -math.inf)
    if b is None:  # of a q with finitely many atoms
        unbounded, turn = torch.ones_like(beyond), torch.zeros_like(a.mean)
    else:
        unbounded, turn = _turn(a, b)
    turn = turn.detach().nan_to_num(nan=0.0, posinf=0.0).floor().clamp(min=0.0)
    k = torch.stack(torch.broadcast_tensors(0 * turn, 0 * turn + 1, turn, turn + 1), -1)
    value = _largest_of(p.log_mass(k), q.log_mass(k))
    return torch.where(unbounded & beyond, math.inf, value)


def _largest_of(log_p: Tensor, log_q: Tensor) -> Tensor:
    log_p, log_q = torch.broadcast_tensors(log_p, log_q)
    gone = torch.isneginf(log_p)
    ratio = torch.where(gone, 0.0, log_p) - torch.where(gone, 0.0, log_q)
    return torch.where(gone, -math.inf, ratio).amax(-1)


def _turn(p: Count, q: Count) -> tuple[Tensor, Tensor]:
    """Where p/q has no upper bound over the counts from 1 on, and the k up to which it rises.

    From k to k + 1, a Poisson's mass changes by the factor m / (k + 1), a NegativeBinomial's by
    p1 (k + r) / (k + 1): the ratio of the two factors falls or rises with k.
    """
    if isinstance(p, PoissonCount):
        if isinstance(q, PoissonCount):
            return p.mean > q.mean, torch.zeros_like(p.mean + q.mean)
        return torch.zeros_like(p.mean + q.size).bool(), p.mean * torch.exp(-q.log_p1) - q.size
    if isinstance(q, PoissonCount):
        return torch.ones_like(p.size + q.mean).bool(), torch.zeros_like(p.size + q.mean)
    rate = p.log_p1 - q.log_p1
    unbounded = (rate > 0) | ((rate == 0) & (p.size > q.size))
    return unbounded, (torch.exp(rate) * p.size - q.size) / -torch.expm1(rate)
