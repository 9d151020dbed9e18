"""GammaPoisson(concentration, rate): NegativeBinomial(concentration, probs=1 / (1 + rate))."""

from __future__ import annotations

import torch
from pyro.distributions import GammaPoisson
from torch import Tensor

from ...numerics.special.counts import log_negative_binomial_mass
from ...registry.family import COUNTS, Family
from ...registry.integrate_counts import NegativeBinomialCount
from ...registry.register import declare


def log_mass(k: Tensor, concentration: Tensor, rate: Tensor) -> Tensor:
    log_p1, log_p0 = -torch.log1p(rate), -torch.log1p(1 / rate)
    return log_negative_binomial_mass(
        k, concentration.unsqueeze(-1), log_p1.unsqueeze(-1), log_p0.unsqueeze(-1)
    )


def count(concentration: Tensor, rate: Tensor) -> NegativeBinomialCount:
    return NegativeBinomialCount(concentration, -torch.log1p(rate), -torch.log1p(1 / rate))


gamma_poisson = declare(
    Family(
        GammaPoisson,
        parameters=("concentration", "rate"),
        support=COUNTS,
        density="gamma(concentration + k) / (gamma(concentration) * factorial(k)) * "
        "rate**concentration / (1 + rate)**(concentration + k)",
        examples=((3.0, 1.5), (0.5, 0.2), (30.0, 4.0)),
        reference="Johnson, Kemp & Kotz (2005), ch. 5",
        log_mass=log_mass,
        count=count,
    )
)
