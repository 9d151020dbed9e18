"""Cauchy || StudentT, by E log|X - z| of a Cauchy X."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...numerics.dtypes import Parameters
from ...registry.register import formula
from ..continuous.cauchy import cauchy
from ..continuous.student_t import minus_log_normaliser, student_t


@formula(
    cauchy,
    student_t,
    cases=[
        ((0.0, 1.0), (3.0, 0.5, 2.0), 0.20240443125728874983),
        ((-9.0, 5.0), (0.4, 1.5, 0.4), 1.693158722940544868),
        ((1.0, 0.01), (1000000.0, 0.0, 1.0), 13.493034972656719238),
    ],
    reference="E log|X - z|^2 = 2 log|z - m + is| for a Cauchy X; derived in the docstring",
)
def kl_cauchy_student_t(p: Parameters, q: Parameters) -> Tensor:
    """KL(Cauchy(m, s) || StudentT(df, mu, t)), always finite.

    With c = t sqrt(df), E log(1 + (x - mu)^2/c^2) = log([(m - mu)^2 + (s + c)^2] / c^2).
    """
    width = q["scale"] * torch.sqrt(q["df"])
    shift = (p["loc"] - q["loc"]) / (p["scale"] + width)
    mean_log = 2 * torch.log1p(p["scale"] / width) + torch.log1p(shift * shift)
    cross_entropy = minus_log_normaliser(q["df"], q["scale"]) + 0.5 * (q["df"] + 1) * mean_log
    return cross_entropy - torch.log(4 * math.pi * p["scale"])
