"""Categorical(probs or logits) on 0, 1, ..., K - 1."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical

from .. import special
from ..family import COUNTS, Family, probs_or_logits
from ..registry import declare


def log_density(mp: Any, k: int, probs: Any = None, logits: Any = None) -> Any:
    weights = list(probs) if logits is None else [mp.exp(x) for x in logits]
    mass = weights[k] / sum(weights) if k < len(weights) else 0
    return mp.log(mass) if mass else -mp.inf


def log_mass(k: Tensor, probs: Tensor | None = None, logits: Tensor | None = None) -> Tensor:
    if probs is not None:
        log_p = special.log_mass(probs) - torch.log(probs.sum(-1, keepdim=True))
    else:
        assert logits is not None
        log_p = torch.log_softmax(logits, -1)
    missing = k.shape[-1] - log_p.shape[-1]
    # a category that one side does not have has no mass there
    return torch.nn.functional.pad(log_p, (0, missing), value=-math.inf)


def num_atoms(probs: Tensor | None = None, logits: Tensor | None = None) -> int:
    given = probs if probs is not None else logits
    assert given is not None
    return int(given.shape[-1])


categorical = declare(
    Family(
        Categorical,
        parameters=("probs", "logits"),
        support=COUNTS,
        examples=(
            {"probs": [0.2, 0.3, 0.5]},
            {"logits": [0.0, 1.0, -2.0]},
            {"probs": [0.5, 0.5]},
            {"probs": [0.6, 0.0, 0.4]},
        ),
        reference="the definition",
        log_density=log_density,
        log_mass=log_mass,
        num_atoms=num_atoms,
        read=probs_or_logits,
        replaces={
            Categorical: "torch clamps probs and reads logit gaps beyond 104 (float32) as inf; "
            "different numbers of categories broadcast to a negative KL"
        },
    )
)
