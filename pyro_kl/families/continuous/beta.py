"""Beta(concentration1, concentration0)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Beta, ContinuousBernoulli, Exponential, Gamma, Normal, Uniform

from ...numerics.autograd.custom import value_and_partials
from ...numerics.dtypes import Parameters
from ...numerics.special.gamma import log_beta, rough_trigamma, stirling, stirling_slope, trigamma
from ...numerics.special.gamma_divergences import FLOAT32, FLOAT64, Fit, stirling_rows
from ...numerics.special.logarithms import log1p_or_log
from ...registry.family import UNIT_INTERVAL, Family, Moment, above, straight
from ...registry.line import Point, unit_line
from ...registry.register import declare, formula

#: The tail indices of x^(a - 1) at 0 and of (1 - x)^(b - 1) at 1.
POWERS = (lambda concentration1, **_: concentration1, lambda concentration0, **_: concentration0)
_DIGITS = "torch loses its digits at large concentrations: wrong by a factor of 100 in float32"


def entropy(concentration1: Tensor, concentration0: Tensor) -> Tensor:
    """In Stirling's remainders: no terms that grow with a and b have to cancel."""
    a, b = concentration1, concentration0
    n = a + b
    return (
        stirling(a) + stirling(b) - stirling(n)
        + torch.log(a / n) + torch.log(b / n)
        - (a - 1) * stirling_slope(a) - (b - 1) * stirling_slope(b) + (n - 2) * stirling_slope(n)
    )  # fmt: skip


def mean(concentration1: Tensor, concentration0: Tensor) -> Tensor:
    return concentration1 / (concentration1 + concentration0)


def variance(concentration1: Tensor, concentration0: Tensor) -> Tensor:
    total = concentration1 + concentration0
    return concentration1 * concentration0 / (total**2 * (total + 1))


def mean_log(concentration1: Tensor, concentration0: Tensor) -> Tensor:
    return torch.digamma(concentration1) - torch.digamma(concentration1 + concentration0)


def mean_log1m(concentration1: Tensor, concentration0: Tensor) -> Tensor:
    return torch.digamma(concentration0) - torch.digamma(concentration1 + concentration0)


def variance_log(concentration1: Tensor, concentration0: Tensor) -> Tensor:
    return trigamma(concentration1) - trigamma(concentration1 + concentration0)


def mean_inverse(concentration1: Tensor, concentration0: Tensor) -> Tensor:
    return (concentration1 + concentration0 - 1) / (concentration1 - 1)


def log_mean_power(k: Tensor, /, concentration1: Tensor, concentration0: Tensor) -> Tensor:
    """Log E x^k."""
    a, total = concentration1, concentration1 + concentration0
    raised = torch.lgamma(a + k) - torch.lgamma(total + k)
    return raised - (torch.lgamma(a) - torch.lgamma(total))


def cross_entropy(
    mean_log: Tensor, mean_log1m: Tensor, /, concentration1: Tensor, concentration0: Tensor
) -> Tensor:
    a, b = concentration1, concentration0
    return log_beta(a, b) - (a - 1) * mean_log - (b - 1) * mean_log1m


def log_density_at(point: Point, concentration1: Tensor, concentration0: Tensor) -> Tensor:
    log_x, log_rest = point.log_unit()
    a, b = concentration1, concentration0
    return (a - 1) * log_x + (b - 1) * log_rest - log_beta(a, b)


def logit_centre(concentration1: Tensor, concentration0: Tensor, **_: Tensor) -> Tensor:
    return torch.digamma(concentration1) - torch.digamma(concentration0)


def logit_width(concentration1: Tensor, concentration0: Tensor, **_: Tensor) -> Tensor:
    """About the standard deviation of logit x."""
    return torch.sqrt(rough_trigamma(concentration1) + rough_trigamma(concentration0))


def logit_bend(
    concentration1: Tensor, concentration0: Tensor, **_: Tensor
) -> tuple[Tensor, Tensor]:
    """The place on the line where the power of x turns into that of 1 - x, and the width."""
    a, b = 1 + concentration1, 1 + concentration0
    return torch.log(a) - torch.log(b), torch.sqrt(1 / a + 1 / b)


beta = declare(
    Family(
        Beta,
        parameters=("concentration1", "concentration0"),
        support=UNIT_INTERVAL,
        density="x**(concentration1 - 1) * (1 - x)**(concentration0 - 1) / beta(concentration1,"
        " concentration0)",
        examples=((2.0, 3.0), (0.4, 0.7), (60.0, 9.0)),
        reference="Johnson, Kotz & Balakrishnan (1995), ch. 25",
        entropy=entropy,
        moments={
            "mean": Moment(mean),
            "variance": Moment(variance),
            "mean_log": Moment(mean_log),
            "mean_log1m": Moment(mean_log1m),
            "variance_log": Moment(variance_log),
            "mean_inverse": Moment(mean_inverse, finite=above(concentration1=1)),
            "log_mean_power": Moment(log_mean_power),
        },
        cross_entropy=cross_entropy,
        geometric_mixture=straight("concentration1", "concentration0"),
        replaces={
            Normal: _DIGITS,
            Gamma: _DIGITS,
            Exponential: _DIGITS,
            ContinuousBernoulli: _DIGITS,
            Uniform: _DIGITS,
        },
        line=unit_line(
            log_density_at, centre=logit_centre, width=logit_width, bend=logit_bend, index=POWERS
        ),
    )
)


@value_and_partials(block=530, float32={"block": 800, "fit": FLOAT32})
def kl_of_two_betas(
    a: Tensor, b: Tensor, c: Tensor, d: Tensor, *, slopes: bool, fit: Fit = FLOAT64
) -> tuple[Tensor, ...]:
    """KL(Beta(a, b) || Beta(c, d)) and its derivatives, of flat tensors.

    The terms of (c, a), (d, b) and (c + d, a + b) are the three parts of one long tensor.
    """
    p_total, q_total = a + b, c + d
    scale = q_total / p_total
    # c - a scale = -(d - b scale), from the differences
    excess = torch.addcmul((c - a) * b, d - b, a, value=-1) / p_total
    u, r = torch.cat((-excess / c, excess / d)), torch.cat((a * scale / c, b * scale / d))
    # The totals have no Bernoulli term: the third part repeats the first one and is not used.
    bernoulli = torch.cat((u, u[: len(a)])), torch.cat((r, r[: len(a)]))
    rows = stirling_rows(
        torch.cat((c, d, q_total)), torch.cat((a, b, p_total)), [bernoulli], "xy" * slopes, fit
    )
    of_c, of_d, of_total = rows.value.chunk(3)
    # A third part that is not used would have no gradient, which a traced `chunk` cannot take.
    bernoulli_c, bernoulli_d = rows.excess[0][: 2 * len(a)].chunk(2)
    value = torch.addcmul(of_c + of_d - of_total, c, bernoulli_c)
    value = torch.addcmul(value, d, bernoulli_d)
    if not slopes:
        return (value,)
    log_c, log_d = log1p_or_log(u, r).chunk(2)
    by_c, by_d, by_q_total = rows.slopes[0].chunk(3)
    by_a, by_b, by_p_total = rows.slopes[1].chunk(3)
    by_a, by_b = by_a - by_p_total - excess / a, by_b - by_p_total + excess / b
    return value, by_a, by_b, by_c - by_q_total - log_c, by_d - by_q_total - log_d


@formula(
    beta,
    beta,
    cases=[
        ((3.0, 2.0), (1.0, 1.0), 0.23490664978800031023),
        ((1.01e6, 3.03e5), (1e6, 3e5), 2.4670406194721456254e-5),
        ((0.2, 50.0), (0.200001, 50.0), 1.3123586667140915041e-11),
    ],
    reference="Penny (2001) for the Dirichlet; split derived in the docstring",
    replaces="torch's difference of lgammas has no digits at large concentrations: float32 "
    "Beta(1.01e6, 3.03e5) || Beta(1e6, 3e5) is -2.67 instead of 2.5e-5",
)
def kl_beta_beta(p: Parameters, q: Parameters) -> Tensor:
    r"""KL(Beta(a, b) || Beta(c, d)): the Bregman divergence of lgamma, regrouped.

    log B is lgamma(a) + lgamma(b) - lgamma(a + b). With lgamma(x) = x log x - x + F(x), the
    leading terms make a KL of two Bernoullis and the rest is small (D_F is F's divergence):

        KL = (c + d) KL(Bernoulli(c/(c+d)) || Bernoulli(a/(a+b)))
             + D_F(c, a) + D_F(d, b) - D_F(c + d, a + b)
    """
    return kl_of_two_betas(
        p["concentration1"], p["concentration0"], q["concentration1"], q["concentration0"]
    )
