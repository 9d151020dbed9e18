"""Gamma(concentration, rate)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Gamma, Gumbel, Normal

from ...numerics.autograd.custom import value_and_partials
from ...numerics.dtypes import Parameters
from ...numerics.special.gamma import rough_trigamma, stirling, stirling_slope, trigamma
from ...numerics.special.gamma_divergences import FLOAT32, FLOAT64, Fit, stirling_rows
from ...numerics.special.incomplete import power_of_gamma_mean_excess
from ...numerics.special.logarithms import log1p_or_log, ratio_minus_one
from ...registry.family import POSITIVE, Family, Moment, above, straight
from ...registry.line import Point, positive_line
from ...registry.register import declare, formula

_DIGITS = "torch loses its digits at large concentrations (float32: 1.0 relative) and overflows"


def entropy(concentration: Tensor, rate: Tensor) -> Tensor:
    """In Stirling's remainder: no terms that grow with the concentration have to cancel."""
    a = concentration
    return stirling(a) + (1 - a) * stirling_slope(a) + torch.log(a) - torch.log(rate)


def mean(concentration: Tensor, rate: Tensor) -> Tensor:
    return concentration / rate


def variance(concentration: Tensor, rate: Tensor) -> Tensor:
    return concentration / rate / rate


def mean_log(concentration: Tensor, rate: Tensor) -> Tensor:
    return torch.digamma(concentration) - torch.log(rate)


def variance_log(concentration: Tensor, rate: Tensor) -> Tensor:
    return trigamma(concentration)


def mean_inverse(concentration: Tensor, rate: Tensor) -> Tensor:
    return rate / (concentration - 1)


def mean_excess(m: Tensor, /, concentration: Tensor, rate: Tensor) -> Tensor:
    """E (x - m)+."""
    average = mean(concentration, rate)
    one = torch.ones_like(concentration)
    return power_of_gamma_mean_excess(m, average, concentration, average, one)


def log_mean_power(k: Tensor, /, concentration: Tensor, rate: Tensor) -> Tensor:
    """Log E x^k."""
    a = concentration
    return torch.lgamma(a + k) - torch.lgamma(a) - k * torch.log(rate)


def log_laplace(t: Tensor, /, concentration: Tensor, rate: Tensor) -> Tensor:
    """Log E exp(-t x)."""
    return -concentration * torch.log1p(t / rate)


def cross_entropy(
    mean_log: Tensor, mean: Tensor, /, concentration: Tensor, rate: Tensor
) -> Tensor:
    a = concentration
    return torch.lgamma(a) - a * torch.log(rate) + (1 - a) * mean_log + rate * mean


def log_density_at(point: Point, concentration: Tensor, rate: Tensor) -> Tensor:
    log_z = point.log_over(0.0) + torch.log(rate)
    norm = torch.lgamma(concentration)
    return concentration * log_z - torch.exp(log_z) - point.log_over(0.0) - norm


def log_width(concentration: Tensor, rate: Tensor) -> Tensor:
    """About the standard deviation of log x."""
    return torch.sqrt(rough_trigamma(concentration))


def bend(concentration: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """The place on the line where the power of x turns into the exponential, and the width."""
    more = 1 + concentration
    return torch.log(more) - torch.log(rate), torch.rsqrt(more)


gamma = declare(
    Family(
        Gamma,
        parameters=("concentration", "rate"),
        support=POSITIVE,
        density="rate**concentration / gamma(concentration) * x**(concentration - 1) * "
        "exp(-rate * x)",
        examples=((2.0, 1.0), (0.3, 5.0), (40.0, 0.2)),
        reference="Johnson, Kotz & Balakrishnan (1994), ch. 17",
        entropy=entropy,
        moments={
            "mean": Moment(mean),
            "variance": Moment(variance),
            "mean_log": Moment(mean_log),
            "variance_log": Moment(variance_log),
            "mean_inverse": Moment(mean_inverse, finite=above(concentration=1)),
            "mean_excess": Moment(mean_excess),
            "log_mean_power": Moment(log_mean_power),
            "log_laplace": Moment(log_laplace),
        },
        cross_entropy=cross_entropy,
        geometric_mixture=straight("concentration", "rate"),
        replaces={Normal: _DIGITS, Gumbel: "torch multiplies inf by 0: nan"},
        line=positive_line(
            log_density_at,
            centre=mean_log,
            width=log_width,
            bend=bend,
            reach=(40.0, 9.0),
            index=(lambda concentration, rate: concentration, math.inf),
            growth=(0.0, 1.0),
            decay=(None, lambda concentration, rate: rate),
        ),
    )
)


def _ratio_of_means(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """r - 1 and r for r = (a / c) (d / b), from differences that do not cancel."""
    p, q = (a - c) / c, a / c
    t, turned = ratio_minus_one(d, b), d / b
    return torch.where(turned > 1, p + q * t, t + p * turned), q * turned


def kl_and_slopes(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    *,
    slopes: bool,
    by_c: bool = True,
    fit: Fit = FLOAT64,
) -> tuple[Tensor, ...]:
    """KL(Gamma(a, b) || Gamma(c, d)) of flat tensors, and its derivatives.

    A single number may stand for c, if the derivative by it is not wanted.
    """
    u, r = _ratio_of_means(a, b, c, d)
    rows = stirling_rows(c, a, [(u, r)], ("xy" if by_c else "y") * slopes, fit)
    value = torch.addcmul(rows.value, c, rows.excess[0])
    if not slopes:
        return (value,)
    g = c * u
    by_a, by_b, by_d = rows.slopes[-1] + g / a, -g / b, g / d
    if not by_c:
        return value, by_a, by_b, by_d
    # digamma(c) - digamma(a) - log(d / b), with the logarithms of c / a and d / b as one
    return value, by_a, by_b, rows.slopes[0] - log1p_or_log(u, r), by_d


kl_of_two_gammas = value_and_partials(block=1600, float32={"block": 2400, "fit": FLOAT32})(
    kl_and_slopes
)


@formula(
    gamma,
    gamma,
    cases=[
        ((3.0, 2.0), (2.0, 2.0), 0.22963715453852182998),
        ((1000.0, 1.0), (1000.1, 1.0), 5.0023340082641154873e-6),
        ((1.01e6, 10.1), (1e6, 10.0), 2.4670385248224674114e-5),
        ((0.001, 1.0), (30.0, 1e-3), 30287.848101833624846),
    ],
    reference="Penny (2001), KL divergences of Normal, Gamma, Dirichlet and Wishart densities; "
    "split derived in the docstring",
    replaces="torch's difference of lgammas has no digits at large concentrations: float32 "
    "Gamma(1000) || Gamma(1000.1) is wrong by a factor of 70, others are negative",
)
def kl_gamma_gamma(p: Parameters, q: Parameters) -> Tensor:
    r"""KL(Gamma(a, b) || Gamma(c, d)), as two terms that are never negative.

    With F(x) = lgamma(x) - x log x + x and the ratio of the means r = (a/b) / (c/d),

        KL = c (r - 1 - log r) + F(c) - F(a) - (c - a) F'(a)

    where the first is 0 for equal means and the others are 0 for equal concentrations.
    """
    return kl_of_two_gammas(p["concentration"], p["rate"], q["concentration"], q["rate"])
