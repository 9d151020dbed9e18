"""Bernoulli(probs or logits), an atom at 0 and one at 1."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Poisson
from torch.nn.functional import logsigmoid

from .. import special
from ..family import COUNTS, Family, Parameters
from ..pair import Case
from ..registry import declare, formula
from ..special import excess_over, generalised_kl_of_logs

#: Beyond it the square of exp(-logits) is no longer a normal float64.
UNDERFLOW = 300


def read(p: Any) -> Parameters:
    """The parameter that was given; torch clamps when it computes the other one."""
    if "probs" in p.__dict__ and p._param is p.__dict__["probs"]:
        return {"probs": p.probs}
    return {"logits": p.logits}


def log_density(mp: Any, k: int, probs: Any = None, logits: Any = None) -> Any:
    p1 = probs if logits is None else 1 / (1 + mp.exp(-logits))
    mass = {0: 1 - p1, 1: p1}.get(k, 0)
    return mp.log(mass) if mass else -mp.inf


def log_masses(probs: Tensor | None = None, logits: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Log of the mass at 1, and of that at 0."""
    if probs is not None:
        below_one = probs < 1
        log_p0 = torch.log1p(-torch.where(below_one, probs, 0.0))
        return special.log_mass(probs), torch.where(below_one, log_p0, -math.inf)
    assert logits is not None
    return logsigmoid(logits), logsigmoid(-logits)


def log_mass(k: Tensor, probs: Tensor | None = None, logits: Tensor | None = None) -> Tensor:
    log_p1, log_p0 = log_masses(probs, logits)
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
        read=read,
        replaces={Poisson: "torch gives nan for probs 0 against rate 0, and clamps probs"},
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
    """KL of two flips, from the difference of their parameters where they are close."""
    near, close = close_flips(p, q)
    log_p1, log_p0 = log_masses(**p)
    log_q1, log_q0 = log_masses(**q)
    far = generalised_kl_of_logs(log_p1, log_q1) + generalised_kl_of_logs(log_p0, log_q0)
    return torch.where(near, close, far)


def close_flips(p: Parameters, q: Parameters) -> tuple[Tensor, Tensor]:
    """Where two flips, parametrised alike, are close; there their KL, elsewhere anything finite.

    The logs of the masses have lost what tells them apart. With d = q's logits - p's and m the
    smaller of p's masses, KL = log(1 + m (e^d - 1)) - m d, up to the sign of d.
    """
    if p.keys() != q.keys():
        x = next(iter(p.values()))
        return torch.zeros_like(x, dtype=torch.bool), torch.zeros_like(x)
    if "probs" in p:
        x, y = torch.broadcast_tensors(p["probs"], q["probs"])
        near = (x - y).abs() < 0.1 * torch.minimum(y, 1 - y)
        x, y = torch.where(near, x, 0.5), torch.where(near, y, 0.5)
        return near, excess_over(x, y, x - y) + excess_over(1 - x, 1 - y, y - x)
    x, y = torch.broadcast_tensors(p["logits"], q["logits"])
    near = ((x - y).abs() < 0.1) & (x.abs() < UNDERFLOW)
    x, d = torch.where(near, x, 0.0), torch.where(near, y - x, 0.0)
    m, d = torch.sigmoid(-x.abs()), torch.where(x > 0, -d, d)
    return near, special.log1p_minus(m * torch.expm1(d)) + m * special.exp_excess(-d)
