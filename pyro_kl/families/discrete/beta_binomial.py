"""BetaBinomial(concentration1, concentration0, total_count)."""

from __future__ import annotations

import math

import torch
from pyro.distributions import BetaBinomial, ExtendedBetaBinomial
from torch import Tensor

from ...numerics.dtypes import Parameters
from ...numerics.special.counts import largest, log_choose, log_rising_ratio, rising_excess
from ...numerics.special.logarithms import expm1mx
from ...registry.compose import kl_terms, log_masses_of
from ...registry.family import COUNTS, Family, atoms_up_to_total_count, counts_of
from ...registry.register import declare, formula


def read(p: BetaBinomial) -> Parameters:
    n = counts_of(p) if isinstance(p, ExtendedBetaBinomial) else p.total_count
    return {
        "concentration1": p.concentration1,
        "concentration0": p.concentration0,
        "total_count": n,
    }


def log_mass(
    k: Tensor, concentration1: Tensor, concentration0: Tensor, total_count: Tensor
) -> Tensor:
    """The log mass of a Binomial at the mean, plus log ratios of rising factorials to powers."""
    a, b, n = (x.unsqueeze(-1) for x in (concentration1, concentration0, total_count))
    inside = k <= n
    k = torch.where(inside, k, 0)
    both = a + b
    at_mean = log_choose(n, k) + k * torch.log(a / both) + (n - k) * torch.log(b / both)
    excess = rising_excess(a, k) + rising_excess(b, n - k) - rising_excess(both, n)
    return torch.where(inside, at_mean + excess, -math.inf)


beta_binomial = declare(
    Family(
        BetaBinomial,
        parameters=("concentration1", "concentration0", "total_count"),
        support=COUNTS,
        density="binomial(total_count, k) * beta(concentration1 + k, concentration0 + "
        "total_count - k) / beta(concentration1, concentration0)",
        examples=((2.0, 3.0, 5.0), (0.4, 0.7, 3.0), (50.0, 20.0, 40.0), (1.5, 2.5, 1.0)),
        reference="Johnson, Kemp & Kotz (2005), sec. 6.2.2",
        log_mass=log_mass,
        num_atoms=atoms_up_to_total_count,
        read=read,
    )
)
_log_masses = log_masses_of(beta_binomial)


@formula(
    beta_binomial,
    beta_binomial,
    masked=True,
    cases=[
        ((2.0, 3.0, 5.0), (0.5, 0.7, 5.0), 0.1599621040664067854791),
        ((50.0, 20.0, 40.0), (50.00005, 20.0, 40.0), 2.637234082622600960351e-12),
        ((2.0, 3.0, 4.0), (2.0, 3.0, 7.0), 0.3063069373964852064868),
    ],
    finite="p.total_count <= q.total_count",
    reference="the definition, summed; rising factorials of close parameters by their factors",
    method="exact sum",
)
def kl_beta_binomial_beta_binomial(p: Parameters, q: Parameters) -> Tensor:
    """The sum over the atoms, with log p - log q from the differences of the parameters."""
    names = ("concentration1", "concentration0", "total_count")
    a, b, n = (p[name].unsqueeze(-1) for name in names)
    c, d, m = (q[name].unsqueeze(-1) for name in names)
    count = max(largest(n), largest(m)) + 1
    log_p, log_q = _log_masses(count, p), _log_masses(count, q)
    k = torch.arange(count, device=n.device)
    inside = k <= n
    distance = (
        log_rising_ratio(a, a - c, k)
        + log_rising_ratio(b, b - d, torch.where(inside, n - k, 0.0).long())
        - log_rising_ratio(a + b, (a - c) + (b - d), torch.where(inside, n, 0.0).long())
    )
    near = (n == m) & inside & (distance.abs() < 0.1)
    close = torch.exp(log_p) * expm1mx(-torch.where(near, distance, 0.0))
    return torch.where(near, close, kl_terms(log_p, log_q)).sum(-1)
