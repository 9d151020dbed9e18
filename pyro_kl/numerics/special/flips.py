"""Bernoulli trials, given by `probs` or by `logits`."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..dtypes import Parameters
from . import divergences as special
from .bernoulli import bernoulli_kl
from .bernoulli_logits import bernoulli_kl_of_logits
from .divergences import kl_div_of_logs


def log_masses(probs: Tensor | None = None, logits: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Log of the mass at 1, and of that at 0."""
    if probs is not None:
        always = probs >= 1
        log_p0 = torch.log1p(-torch.where(always, 0.0, probs))
        return special.safe_log(probs), torch.where(always, -math.inf, log_p0)
    assert logits is not None
    return logsigmoid(logits), logsigmoid(-logits)


def kl_of_logs(log_p1: Tensor, log_p0: Tensor, log_q1: Tensor, log_q0: Tensor) -> Tensor:
    """KL of two flips from the logs of their masses; close ones lose digits here."""
    return kl_div_of_logs(log_p1, log_q1) + kl_div_of_logs(log_p0, log_q0)


def kl_bernoulli(p: Parameters, q: Parameters) -> Tensor:
    """KL of two flips, from the difference of their parameters where they are close."""
    if "probs" in p and "probs" in q:
        return bernoulli_kl(p["probs"], q["probs"])
    if "logits" in p and "logits" in q:
        return bernoulli_kl_of_logits(p["logits"], q["logits"])
    log_p1, log_p0 = log_masses(**p)
    kl = kl_of_logs(log_p1, log_p0, *log_masses(**q))
    return kl + slope_at_ends(log_p1, log_p0, q["probs"]) if "probs" in q else kl


def slope_at_ends(log_p1: Tensor, log_p0: Tensor, probs: Tensor) -> Tensor:
    """0, with q's one-sided slope where neither flip has mass: there no logarithm has one."""
    at_0 = torch.isneginf(log_p1) & (probs == 0)
    at_1 = torch.isneginf(log_p0) & (probs == 1)
    return torch.where(at_0, probs, 0.0) + torch.where(at_1, 1 - probs, 0.0)
