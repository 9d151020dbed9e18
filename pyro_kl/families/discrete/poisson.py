"""Poisson(rate); rate 0 is an atom at 0."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Bernoulli, Binomial, Poisson

from ...numerics.dtypes import Parameters
from ...numerics.special.alpha_divergences import renyi_terms
from ...numerics.special.counts import log_poisson_mass, poisson_tail
from ...numerics.special.divergences import kl_div_from_zero
from ...numerics.special.logarithms import safe_log
from ...registry.family import COUNTS, Family
from ...registry.integrate_counts import PoissonCount
from ...registry.pair import Case
from ...registry.register import declare, formula

_RATE_ZERO = "torch gives inf where rate 0 makes it finite, in p's shape"


def log_mass(k: Tensor, rate: Tensor) -> Tensor:
    return log_poisson_mass(k, rate.unsqueeze(-1))


def renyi(p: Parameters, q: Parameters, alpha: float) -> Tensor:
    """[a r + (1 - a) s - r^a s^(1 - a)] / (1 - a) for the rates r and s."""
    return renyi_terms(safe_log(p["rate"]), safe_log(q["rate"]), alpha)


poisson = declare(
    Family(
        Poisson,
        parameters=("rate",),
        support=COUNTS,
        density="rate**k * exp(-rate) / factorial(k)",
        examples=({"rate": 2.0}, {"rate": 0.3}, {"rate": 25.0}, {"rate": 0.0}),
        reference="Johnson, Kemp & Kotz (2005), ch. 4",
        log_mass=log_mass,
        tail=poisson_tail,
        renyi=renyi,
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
