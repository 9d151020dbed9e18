"""Uniform(low, high)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    ContinuousBernoulli,
    Exponential,
    Gamma,
    Gumbel,
    Pareto,
    Uniform,
)

from ...numerics.autograd.custom import with_partials
from ...numerics.dtypes import Parameters
from ...numerics.special.log_sinhc import log_sinhc_bounded
from ...numerics.special.log_uniform import log_of_ratio, variance_log_of
from ...registry.family import Family, Moment, Support, above
from ...registry.line import Line, Point, interval
from ...registry.pair import Case
from ...registry.register import declare, formula

_SHAPES = "torch raises on broadcast shapes"


INTERVAL = Support(
    "interval from low to high",
    discrete=False,
    low=lambda low, high: low,
    high=lambda low, high: high,
)


def _scaled(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The centre c, r, 1 - r and 1 + r, where low = c (1 - r) and high = c (1 + r)."""
    centre = 0.5 * low + 0.5 * high
    return centre, 0.5 * (high - low) / centre, low / centre, high / centre


# --- moments; those of log x and 1/x are used only where low >= 0 --------------------------------


def entropy(low: Tensor, high: Tensor) -> Tensor:
    return torch.log(high - low)


def mean(low: Tensor, high: Tensor) -> Tensor:
    return 0.5 * low + 0.5 * high


def _below_high(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """log(high / low), 0 where low is 0, and E log(high / x)."""
    some = low > 0
    log_ratio = torch.where(some, torch.log1p((high - low) / torch.where(some, low, 1.0)), 0.0)
    return log_ratio, 1 - low * log_ratio / (high - low)


def _mean_log_partials(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    log_ratio, below = _below_high(low, high)
    width = high - low
    return (log_ratio - below) / width, below / width


# For speed: 1.1 times as fast as what autograd derives, in the pair that uses it, in float64.
@with_partials(_mean_log_partials)
def _mean_log(low: Tensor, high: Tensor) -> Tensor:
    return torch.log(high) - _below_high(low, high)[1]


def mean_log(low: Tensor, high: Tensor) -> Tensor:
    """E log x, with an error that is small beside the entropy's log(high - low) in a KL."""
    return _mean_log(low, high)


def mean_log1m(low: Tensor, high: Tensor) -> Tensor:
    return mean_log(1 - high, 1 - low)


def variance_log(low: Tensor, high: Tensor) -> Tensor:
    _, r, x, y = _scaled(low, high)
    return variance_log_of(r, x, y)


def mean_inverse(low: Tensor, high: Tensor) -> Tensor:
    # Where low is 0 the value is masked, and low is replaced by 1, which may be above high.
    low = torch.where(low < high, low, 0.5 * high)
    return torch.exp(-log_sinhc_bounded(log_of_ratio(low, high))) / high


def mean_excess(m: Tensor, /, low: Tensor, high: Tensor) -> Tensor:
    """E (x - m)+."""
    inside = (m > low) & (m < high)
    rest = torch.where(inside, high - m, 0.0)
    return torch.where(m <= low, mean(low, high) - m, 0.5 * rest * rest / (high - low))


def log_mean_power(k: Tensor, /, low: Tensor, high: Tensor) -> Tensor:
    """Log E x^k, for k > 0."""
    # With d = log(high / low), E (x/high)^k = (1 - exp(-(k + 1) d)) / ((k + 1) (1 - exp(-d)))
    positive = low > 0
    d = torch.where(positive, log_of_ratio(low, high), 1.0)
    shrunk = log_sinhc_bounded((k + 1) * d) - log_sinhc_bounded(d)
    return k * torch.log(high) + torch.where(positive, shrunk, -torch.log1p(k))


def log_laplace(t: Tensor, /, low: Tensor, high: Tensor) -> Tensor:
    """Log E exp(-t x)."""
    x = t.abs() * (high - low)
    return -t * torch.where(t < 0, high, low) + torch.log(-torch.expm1(-x) / x)


def log_density_at(point: Point, low: Tensor, high: Tensor) -> Tensor:
    return torch.zeros_like(point.x) - torch.log(high - low)


def renyi(p: Parameters, q: Parameters, alpha: float) -> Tensor:
    """Of lengths v, w and an overlap o: a / (1 - a) log(v / o) + log(w / o)."""
    low, high = torch.maximum(p["low"], q["low"]), torch.minimum(p["high"], q["high"])
    rest_p, rest_q = (torch.relu(low - x["low"]) + torch.relu(x["high"] - high) for x in (p, q))
    infinite = (low >= high) | ((rest_p > 0) & (alpha > 1))
    overlap = torch.where(infinite, 1.0, high - low)
    value = alpha / (1 - alpha) * torch.log1p(rest_p / overlap) + torch.log1p(rest_q / overlap)
    return torch.where(infinite, math.inf, value)


uniform = declare(
    Family(
        Uniform,
        parameters=("low", "high"),
        support=INTERVAL,
        density="1 / (high - low)",
        examples=((0.0, 1.0), (0.25, 0.75), (2.0, 3.0), (-4.0, 5.0)),
        reference="Johnson, Kotz & Balakrishnan (1995), ch. 26",
        entropy=entropy,
        moments={
            "mean": Moment(mean),
            "variance": Moment(lambda low, high: (high - low) ** 2 / 12),
            "mean_log": Moment(mean_log),
            "mean_log1m": Moment(mean_log1m),
            "variance_log": Moment(variance_log),
            "mean_inverse": Moment(mean_inverse, finite=above(low=0)),
            "mean_excess": Moment(mean_excess),
            "log_mean_power": Moment(log_mean_power),
            "log_laplace": Moment(log_laplace),
        },
        cross_entropy=lambda low, high: torch.log(high - low),
        renyi=renyi,
        safe={"low": 0.25, "high": 0.75},
        replaces={
            Beta: _SHAPES + "; a row outside of (0, 1) makes all gradients nan; narrow intervals "
            "lose their digits",
            Exponential: _SHAPES,
            Gamma: _SHAPES,
            ContinuousBernoulli: "torch takes the ends of [0, 1] for outside: a false inf",
            Gumbel: "torch multiplies inf by 0: nan; narrow intervals lose their digits",
            Pareto: "torch raises scale to the power alpha: inf, and -inf, where that overflows",
        },
        line=Line(
            log_density_at,
            at=interval,
            place=lambda x, low, high: torch.logit((x - low) / (high - low)),
            centre=lambda low, high: torch.zeros_like(low),
            width=lambda low, high: torch.ones_like(low),
            standard={"low": 0.0, "high": 1.0},
            index=(1.0, 1.0),
        ),
    )
)


@formula(
    uniform,
    uniform,
    cases=[
        Case({"low": 1.0, "high": 2.0}, {"low": 0.0, "high": 4.0}, 1.3862943611198906188),
        Case({"low": 1e-06, "high": 1.0}, {"low": 0.0, "high": 1.0}, 1.0000005000003332883e-6),
    ],
    finite="p's support is inside q's",
    reference="Gil, Alajaji & Linder (2013), table 3",
    replaces="torch takes the log of a ratio close to 1, and overflows in float32",
)
def kl_uniform_uniform(p: Parameters, q: Parameters) -> Tensor:
    """KL(Uniform(a, b) || Uniform(c, d)) = log(1 + [(d - b) + (a - c)] / (b - a))."""
    outside = (q["low"] > p["low"]) | (p["high"] > q["high"])
    wider = torch.where(outside, 0.0, (q["high"] - p["high"]) + (p["low"] - q["low"]))
    return torch.where(outside, math.inf, torch.log1p(wider / (p["high"] - p["low"])))
