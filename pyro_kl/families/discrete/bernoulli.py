"""Bernoulli(probs or logits), an atom at 0 and one at 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Bernoulli

from ...numerics.dtypes import Parameters
from ...numerics.special.bernoulli import kl_bernoulli, log_masses
from ...registry.family import COUNTS, Family, probs_or_logits
from ...registry.pair import Case
from ...registry.register import declare, formula


def log_mass(k: Tensor, probs: Tensor | None = None, logits: Tensor | None = None) -> Tensor:
    log_p1, log_p0 = log_masses(probs, logits)
    log_p = torch.where(k == 1, log_p1.unsqueeze(-1), log_p0.unsqueeze(-1))
    return torch.where(k > 1, -math.inf, log_p)


bernoulli = declare(
    Family(
        Bernoulli,
        parameters=("probs", "logits"),
        support=COUNTS,
        density="probs**k * (1 - probs)**(1 - k)",
        examples=({"probs": 0.5}, {"probs": 0.7}, {"logits": -4.0}, {"probs": 1.0}),
        reference="the definition",
        log_mass=log_mass,
        num_atoms=lambda **_: 2,
        read=probs_or_logits,
    )
)


@formula(
    bernoulli,
    bernoulli,
    cases=[
        Case({"probs": 0.5}, {"logits": 17.0}, 7.80685286083943102148),
        Case({"probs": 1.0}, {"probs": 0.25}, 1.386294361119890618834),
        Case({"probs": 0.3}, {"probs": 0.3000003}, 2.142856326654659819326e-13),
        Case({"logits": 2.0}, {"logits": 2.00002}, 2.099861046456737193447e-11),
        Case({"probs": 1e-10}, {"probs": 1e-20}, 2.20258509300904577339e-9),
    ],
    finite="q has mass wherever p has",
    reference="the definition",
    replaces="torch clamps: false inf for logits beyond 16.6 (float32), wrong values for probs "
    "below 1.2e-7, wrong shapes",
)
def kl_bernoulli_bernoulli(p: Parameters, q: Parameters) -> Tensor:
    """KL of two Bernoullis, from the difference of their parameters where they are close."""
    return kl_bernoulli(p, q)
