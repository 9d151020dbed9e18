"""Geometric(probs or logits): failures before the first success, so that 0 has mass probs."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Geometric

from ...numerics.dtypes import Parameters
from ...numerics.special.bernoulli import bernoulli_kl_over_probs, log_masses, slope_at_ends
from ...numerics.special.bernoulli_logits import geometric_kl_of_logits
from ...numerics.special.counts import times
from ...numerics.special.divergences import kl_div_of_logs
from ...numerics.special.logarithms import expm1mx, safe_log
from ...registry.family import COUNTS, Family
from ...registry.integrate_counts import NegativeBinomialCount
from ...registry.pair import Case
from ...registry.register import declare, formula

#: About the logarithm of the largest float64; below -_UNDERFLOW, squares are denormal.
_LOG_MAX = 709.0
_UNDERFLOW = 300


def read(p: Geometric) -> Parameters:
    """The parameter that the user gave: torch adds the other one at its first use."""
    given = next(name for name in p.__dict__ if name in ("probs", "logits"))
    return {given: p.__dict__[given]}


def log_mass(k: Tensor, probs: Tensor | None = None, logits: Tensor | None = None) -> Tensor:
    log_p1, log_p0 = log_masses(probs, logits)
    return times(k, log_p0.unsqueeze(-1)) + log_p1.unsqueeze(-1)


def tail(n: int, probs: Tensor | None = None, logits: Tensor | None = None) -> Tensor:
    """The probability that the first n trials fail."""
    return torch.exp(n * log_masses(probs, logits)[1])


def count(probs: Tensor | None = None, logits: Tensor | None = None) -> NegativeBinomialCount:
    log_p1, log_p0 = log_masses(probs, logits)
    return NegativeBinomialCount(torch.ones_like(log_p1), log_p0, log_p1)


def geometric_mixture(p: Parameters, q: Parameters, alpha: float) -> Parameters:
    """The natural parameter is the log probability of a failure; there is none where it is 0."""
    (_, log_p0), (_, log_q0) = log_masses(**p), log_masses(**q)
    # a constant has no failures: neither has g, unless alpha > 1 and q is the only constant
    q_ends, p_ends = torch.isneginf(log_q0), torch.isneginf(log_p0)
    lp, lq = torch.where(p_ends, 0.0, log_p0), torch.where(q_ends, 0.0, log_q0)
    at_ends = torch.where(p_ends, -math.inf, math.inf if alpha > 1 else -math.inf)
    log_g0 = torch.where(p_ends | q_ends, at_ends, lq + alpha * (lp - lq))
    return {"probs": -torch.expm1(log_g0)}


geometric = declare(
    Family(
        Geometric,
        parameters=("probs", "logits"),
        support=COUNTS,
        density="probs * (1 - probs)**k",
        examples=({"probs": 0.5}, {"probs": 0.2}, {"logits": 2.0}, {"probs": 1.0}),
        reference="Johnson, Kemp & Kotz (2005), ch. 5",
        log_mass=log_mass,
        tail=tail,
        geometric_mixture=geometric_mixture,
        read=read,
        count=count,
    )
)


@formula(
    geometric,
    geometric,
    cases=[
        Case({"probs": 0.5}, {"probs": 0.2}, 0.4462871026284194698992),
        Case({"probs": 1.0}, {"probs": 0.3}, 1.20397280432593602963),
        Case({"probs": 0.3}, {"probs": 0.3000003}, 7.142854422182199662093e-13),
        Case({"probs": 0.125}, {"logits": 17.0}, 115.9858390411435163569),
    ],
    finite="q.probs < 1 or p.probs = 1",
    reference="chain rule over the trials: KL of two Bernoullis, times 1 / p.probs trials",
    replaces="torch gives inf for probs 1 against itself, clamps probs below 1.2e-7 (float32) "
    "and loses all digits where p is close to q",
)
def kl_geometric_geometric(p: Parameters, q: Parameters) -> Tensor:
    """The KL of one trial, times the mean number of trials, 1 / p.probs."""
    if "probs" in p and "probs" in q:
        return bernoulli_kl_over_probs(p["probs"], q["probs"])
    if "logits" in p and "logits" in q:
        return geometric_kl_of_logits(p["logits"], q["logits"])
    # each term is divided by p.probs before it underflows
    log_p1, log_p0 = log_masses(**p)
    log_q1, log_q0 = log_masses(**q)
    rest = kl_div_of_logs(log_p0, log_q0)
    kl = expm1mx(log_q1 - log_p1) + _over_probs(rest, log_p1)
    return kl + slope_at_ends(log_p1, log_p0, q["probs"]) if "probs" in q else kl


def _over_probs(x: Tensor, log_p1: Tensor) -> Tensor:
    """X / p.probs, also where p.probs underflows; +inf where the ratio overflows."""
    finite = torch.isfinite(x)
    x = torch.where(finite, x, 0.0)
    tiny = log_p1 < -_UNDERFLOW
    log_ratio = safe_log(torch.where(tiny, x, 0.0)) - log_p1
    fits = log_ratio < _LOG_MAX
    ratio = torch.where(fits, torch.exp(torch.where(fits, log_ratio, 0.0)), math.inf)
    ratio = torch.where(tiny, ratio, x * torch.exp(-torch.where(tiny, 0.0, log_p1)))
    return torch.where(finite, ratio, math.inf)
