"""Exponential(rate): the Gamma of concentration 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Exponential, Gamma, Gumbel, Normal

from ...numerics.dtypes import Parameters
from ...numerics.special.alpha_divergences import renyi_of_rates
from ...numerics.special.divergences import itakura_saito
from ...numerics.special.gamma import EULER_GAMMA
from ...registry.family import INFINITE, POSITIVE, Family, Moment
from ...registry.line import Point, positive_line
from ...registry.pair import Case
from ...registry.register import declare, formula


def as_gamma(rate: Tensor) -> dict[str, Tensor]:
    return {"concentration": torch.ones_like(rate), "rate": rate}


def mean_excess(m: Tensor, /, rate: Tensor) -> Tensor:
    """E (x - m)+."""
    return torch.exp(-rate * torch.relu(m)) / rate + torch.relu(-m)


def cross_entropy(mean: Tensor, /, rate: Tensor) -> Tensor:
    return rate * mean - torch.log(rate)


def log_density_at(point: Point, rate: Tensor) -> Tensor:
    return torch.log(rate) - rate * point.x


exponential = declare(
    Family(
        Exponential,
        parameters=("rate",),
        support=POSITIVE,
        density="rate * exp(-rate * x)",
        examples=({"rate": 1.0}, {"rate": 0.05}, {"rate": 8.0}),
        reference="Johnson, Kotz & Balakrishnan (1994), ch. 19",
        entropy=lambda rate: 1 - torch.log(rate),
        moments={
            "mean": Moment(lambda rate: 1 / rate),
            "variance": Moment(lambda rate: 1 / rate / rate),
            "mean_log": Moment(lambda rate: -EULER_GAMMA - torch.log(rate)),
            "variance_log": Moment(lambda rate: torch.full_like(rate, math.pi**2 / 6)),
            "mean_inverse": INFINITE,
            "mean_excess": Moment(mean_excess),
            "log_mean_power": Moment(lambda k, /, rate: torch.lgamma(1 + k) - k * torch.log(rate)),
            "log_laplace": Moment(lambda t, /, rate: -torch.log1p(t / rate)),
        },
        cross_entropy=cross_entropy,
        renyi=lambda p, q, alpha: renyi_of_rates(p["rate"], q["rate"], alpha),
        special_case_of=(Gamma, as_gamma),
        replaces={
            Gumbel: "torch gives nan where exp overflows in float32",
            Normal: "torch squares the rate: a false inf in float32 beyond 1e19",
        },
        line=positive_line(
            log_density_at,
            centre=lambda rate: -torch.log(rate),
            width=lambda rate: torch.ones_like(rate),
            reach=(40.0, 3.8),
            standard={"rate": 1.0},
            index=(1.0, math.inf),
            growth=(0.0, 1.0),
            decay=(None, lambda rate: rate),
        ),
    )
)


@formula(
    exponential,
    exponential,
    cases=[
        Case({"rate": 1.0}, {"rate": 2.0}, 0.30685281944005469058),
        Case({"rate": 0.01000001}, {"rate": 0.01}, 4.9999933332814451859e-13),
        Case({"rate": 1e3}, {"rate": 1e-2}, 10.512935464970228399),
    ],
    reference="Gil, Alajaji & Linder (2013), table 3",
    replaces="torch loses all digits where p is close to q",
)
def kl_exponential_exponential(p: Parameters, q: Parameters) -> Tensor:
    """KL(Exponential(a) || Exponential(b)) = b/a - 1 - log(b/a)."""
    return itakura_saito(q["rate"], p["rate"])
