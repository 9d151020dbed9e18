"""Bernoulli(probs or logits), an atom at 0 and one at 1."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli
from torch.nn.functional import logsigmoid

from .. import special
from ..family import COUNTS, Family, probs_or_logits
from ..registry import declare


def log_density(mp: Any, k: int, probs: Any = None, logits: Any = None) -> Any:
    p1 = probs if logits is None else 1 / (1 + mp.exp(-logits))
    mass = {0: 1 - p1, 1: p1}.get(k, 0)
    return mp.log(mass) if mass else -mp.inf


def log_mass(k: Tensor, probs: Tensor | None = None, logits: Tensor | None = None) -> Tensor:
    if probs is not None:
        below_one = probs < 1
        log_p0 = torch.log1p(-torch.where(below_one, probs, 0.0))
        log_p0 = torch.where(below_one, log_p0, -math.inf)
        log_p1 = special.log_mass(probs)
    else:
        assert logits is not None
        log_p1, log_p0 = logsigmoid(logits), logsigmoid(-logits)
    log_p = torch.where(k == 1, log_p1.unsqueeze(-1), log_p0.unsqueeze(-1))
    return torch.where(k > 1, -math.inf, log_p)


bernoulli = declare(
    Family(
        Bernoulli,
        parameters=("probs", "logits"),
        support=COUNTS,
        examples=(
            {"probs": 0.5},
            {"probs": 0.7},
            {"logits": -4.0},
            {"probs": 1.0},
        ),
        reference="the definition",
        log_density=log_density,
        log_mass=log_mass,
        num_atoms=lambda **_: 2,
        read=probs_or_logits,
        replaces={
            Bernoulli: "torch clamps: false inf for logits beyond 16.6 (float32), wrong values "
            "for probs below 1.2e-7, wrong shapes"
        },
    )
)
