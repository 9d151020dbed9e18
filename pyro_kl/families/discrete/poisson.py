"""Poisson(rate); rate 0 is an atom at 0."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Binomial, Poisson

from ...numerics.autograd.custom import with_partials
from ...numerics.dtypes import Parameters
from ...numerics.special.counts import log_poisson_mass
from ...numerics.special.divergences import kl_div_from_zero
from ...registry.family import COUNTS, Family
from ...registry.integrate_counts import PoissonCount
from ...registry.pair import Case
from ...registry.register import declare, formula

_RATE_ZERO = "torch gives inf where rate 0 makes it finite, in p's shape"


def log_mass(k: Tensor, rate: Tensor) -> Tensor:
    return log_poisson_mass(k, rate.unsqueeze(-1))


def _incomplete_gamma_slopes(n: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(n), torch.exp((n - 1) * torch.log(x) - x - torch.lgamma(n))


@with_partials(_incomplete_gamma_slopes)
def _incomplete_gamma(n: Tensor, x: Tensor) -> Tensor:
    """P(n, x) for an integer n; torch's gammainc has no forward-mode derivative."""
    return torch.special.gammainc(n, x)


def tail(n: int, rate: Tensor) -> Tensor:
    if n == 1:
        return -torch.expm1(-rate)
    positive = rate > 0
    safe = torch.where(positive, rate, 1.0)
    return torch.where(positive, _incomplete_gamma(torch.full_like(safe, n), safe), 0.0)


poisson = declare(
    Family(
        Poisson,
        parameters=("rate",),
        support=COUNTS,
        examples=({"rate": 2.0}, {"rate": 0.3}, {"rate": 25.0}, {"rate": 0.0}),
        reference="Johnson, Kemp & Kotz (2005), ch. 4",
        log_mass=log_mass,
        tail=tail,
        replaces={Bernoulli: _RATE_ZERO, Binomial: _RATE_ZERO},
        count=lambda rate: PoissonCount(rate),
    )
)


@formula(
    poisson,
    poisson,
    cases=[
        Case({"rate": 3.0}, {"rate": 2.0}, 0.216395324324493145934),
        Case({"rate": 0.0}, {"rate": 2.0}, 2.0),
        Case({"rate": 2.000002}, {"rate": 2.0}, 9.999996665023001396141e-13),
        Case({"rate": 1e-3}, {"rate": 30.0}, 29.98869104733935570736),
    ],
    finite="q.rate > 0 or p.rate = 0",
    reference="Gil, Alajaji & Linder (2013); the Bregman divergence of x log x",
    replaces="torch gives nan for rate 0, and loses all digits where p is close to q",
)
def kl_poisson_poisson(p: Parameters, q: Parameters) -> Tensor:
    """KL(Poisson(a) || Poisson(b)) = a log(a/b) - a + b."""
    return kl_div_from_zero(p["rate"], q["rate"])
