"""Categorical(probs or logits) on 0, 1, ..., K - 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Categorical
from torch.nn.functional import pad

from ...numerics.dtypes import in_float64, promoted
from ...numerics.special.categorical import kl_of_logs, kl_of_masses
from ...numerics.special.logarithms import safe_log
from ...registry.family import COUNTS, Family, probs_or_logits
from ...registry.pair import Case
from ...registry.register import declare, register
from ...registry.shapes import broadcast_batch


def log_mass(k: Tensor, probs: Tensor | None = None, logits: Tensor | None = None) -> Tensor:
    if probs is not None:
        log_p = safe_log(probs) - torch.log(probs.sum(-1, keepdim=True))
    else:
        assert logits is not None
        log_p = torch.log_softmax(logits, -1)
    missing = k.shape[-1] - log_p.shape[-1]
    # a category that only the other distribution has gets no mass
    return pad(log_p, (0, missing), value=-math.inf)


def num_atoms(probs: Tensor | None = None, logits: Tensor | None = None) -> int:
    given = probs if probs is not None else logits
    assert given is not None
    return int(given.shape[-1])


categorical = declare(
    Family(
        Categorical,
        parameters=("probs", "logits"),
        support=COUNTS,
        density="probs[k]",
        examples=(
            {"probs": [0.2, 0.3, 0.5]},
            {"logits": [0.0, 1.0, -2.0]},
            {"probs": [0.5, 0.5]},
            {"probs": [0.6, 0.0, 0.4]},
        ),
        reference="the definition",
        log_mass=log_mass,
        num_atoms=num_atoms,
        read=probs_or_logits,
    )
)


@register(
    Categorical,
    Categorical,
    cases=[
        Case({"probs": [0.2, 0.3, 0.5]}, {"probs": [0.4, 0.4, 0.2]}, 0.233211308089554187975),
        Case({"probs": [0.6, 0.0, 0.4]}, {"logits": [0.0, 1.0, -2.0]}, 1.476000549758929984827),
        Case(
            {"logits": [0.0, 1.0, -2.0]},
            {"logits": [0.0, 1.0, -2.03125]},
            0.0000163865648734743050762,
        ),
        Case(
            {"probs": [0.25, 0.5, 0.25]},
            {"probs": [0.25, 0.5078125, 0.25]},
            0.00003004717407232187203588,
        ),
        Case({"probs": [0.5, 0.5]}, {"probs": [0.5, 0.0, 0.5]}, math.inf),
    ],
    finite="q has mass wherever p has",
    reference="the definition, summed",
    method="exact sum",
    replaces="torch clamps probs and reads logit gaps beyond 104 (float32) as inf; "
    "different numbers of categories broadcast to a negative KL",
)
def kl_categorical_categorical(p: Categorical, q: Categorical) -> Tensor:
    """The sum over the categories in non-negative terms, from the probs or logits as given."""
    shape = broadcast_batch(p, q)
    a, b = probs_or_logits(p), probs_or_logits(q)
    if "probs" in a and "probs" in b:
        kl = kl_of_masses(*_padded(a["probs"], b["probs"], 0.0))
    elif "logits" in a and "logits" in b:
        kl = kl_of_logs(*_padded(a["logits"], b["logits"], -math.inf))
    else:
        given = (*a.values(), *b.values())
        k = torch.arange(max(x.shape[-1] for x in given), device=given[0].device)
        logs = [log_mass(k, **{name: in_float64(x)}) for name, x in (*a.items(), *b.items())]
        kl = kl_of_logs(*logs).to(promoted(given))
    return kl.expand(shape)


def _padded(x: Tensor, y: Tensor, nothing: float) -> tuple[Tensor, Tensor]:
    """Both with all categories: one that only the other distribution has gets no mass."""
    missing = y.shape[-1] - x.shape[-1]
    if missing == 0:
        return x, y
    more_of_x, more_of_y = (0, max(missing, 0)), (0, max(-missing, 0))
    return pad(x, more_of_x, value=nothing), pad(y, more_of_y, value=nothing)
