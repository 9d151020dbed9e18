"""Pareto(scale, alpha): scale times the exponential of an Exponential(alpha)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Exponential, Gamma, Normal, Pareto

from ...numerics.dtypes import Parameters
from ...numerics.special.alpha_divergences import renyi_of_rates
from ...numerics.special.divergences import itakura_saito
from ...numerics.special.logarithms import log1mexp
from ...registry.family import Family, Moment, Support, above
from ...registry.line import Distance, Line, Point, exp_or_inf
from ...registry.register import declare, formula

_SHAPES = "torch raises on broadcast shapes and under vmap; an infinite row makes gradients nan"

FROM_SCALE = Support(
    "half-line from scale",
    discrete=False,
    low=lambda scale, alpha: scale,
    high=math.inf,
    above=0.0,
)


def mean(scale: Tensor, alpha: Tensor) -> Tensor:
    return alpha * scale / (alpha - 1)


def variance(scale: Tensor, alpha: Tensor) -> Tensor:
    return alpha * (scale / (alpha - 1)) ** 2 / (alpha - 2)


def mean_excess(m: Tensor, /, scale: Tensor, alpha: Tensor) -> Tensor:
    """E (x - m)+."""
    inside = m > scale
    far = torch.where(inside, m, scale)
    beyond = far / (alpha - 1) * torch.exp(alpha * torch.log(scale / far))
    return torch.where(inside, beyond, alpha * scale / (alpha - 1) - m)


def log_mean_power(k: Tensor, /, scale: Tensor, alpha: Tensor) -> Tensor:
    """Log E x^k, for k < alpha."""
    return k * torch.log(scale) - torch.log1p(-k / alpha)


def cross_entropy(mean_log: Tensor, /, scale: Tensor, alpha: Tensor) -> Tensor:
    return mean_log - torch.log(alpha) + alpha * (mean_log - torch.log(scale))


def log_density_at(point: Point, scale: Tensor, alpha: Tensor) -> Tensor:
    log_x = point.log_over(0.0)
    return torch.log(alpha) - log_x - alpha * (log_x - torch.log(scale))


def at(y: Tensor, scale: Tensor, alpha: Tensor) -> Point:
    """X = scale exp(e / alpha), with e = exp(y), a standard exponential variable."""
    r = torch.exp(y) / alpha
    log_x = torch.log(scale) + r
    return Point(
        exp_or_inf(log_x),
        log_x + y - torch.log(alpha),
        scale,
        log_x + log1mexp(-r),
        log_size=log_x,
    )


def place(x: Tensor, scale: Tensor, alpha: Tensor) -> Tensor:
    return torch.log(alpha * torch.log(x / scale))


def renyi(p: Parameters, q: Parameters, alpha: float) -> Tensor:
    """That of the Exponentials of log x, from the larger scale on.

    Beyond m, a member of scale s is a fraction (s / m)^alpha of the one of scale m.
    """
    above = torch.log(p["scale"]) - torch.log(q["scale"])
    lost = (alpha / (1 - alpha)) * p["alpha"] * torch.relu(-above)
    if alpha > 1:
        lost = torch.where(above < 0, math.inf, 0.0 * lost)
    of_logs = renyi_of_rates(p["alpha"], q["alpha"], alpha)
    return of_logs + q["alpha"] * torch.relu(above) + lost


pareto = declare(
    Family(
        Pareto,
        parameters=("scale", "alpha"),
        support=FROM_SCALE,
        density="alpha * scale**alpha / x**(alpha + 1)",
        examples=((1.0, 3.0), (0.5, 1.2), (4.0, 6.0)),
        reference="Johnson, Kotz & Balakrishnan (1994), ch. 20",
        entropy=lambda scale, alpha: torch.log(scale / alpha) + 1 / alpha + 1,
        moments={
            "mean": Moment(mean, finite=above(alpha=1)),
            "variance": Moment(variance, finite=above(alpha=2)),
            "mean_log": Moment(lambda scale, alpha: torch.log(scale) + 1 / alpha),
            "variance_log": Moment(lambda scale, alpha: 1 / alpha**2),
            "mean_inverse": Moment(lambda scale, alpha: alpha / ((alpha + 1) * scale)),
            "mean_excess": Moment(mean_excess, finite=above(alpha=1)),
            "log_mean_power": Moment(
                log_mean_power, argument_below=lambda scale, alpha: alpha, below="p.alpha"
            ),
        },
        cross_entropy=cross_entropy,
        renyi=renyi,
        replaces={Exponential: _SHAPES, Gamma: _SHAPES, Normal: _SHAPES},
        line=Line(
            log_density_at,
            at=at,
            place=place,
            centre=lambda scale, alpha: torch.zeros_like(scale),
            width=lambda scale, alpha: torch.ones_like(scale),
            reach=(40.0, 3.8),
            standard={"scale": 1.0, "alpha": 1.0},
            index=(1.0, lambda scale, alpha: alpha),
            log_tail=True,
            distance=lambda scale, alpha: Distance(scale, None, scale / (alpha - 1)),
        ),
    )
)


@formula(
    pareto,
    pareto,
    cases=[
        ((2.0, 3.0), (1.0, 1.5), 1.2328679513998632735),
        ((1.0, 3.000003), (1.0, 3.0), 4.999993333258315794e-13),
        ((1.000001, 2.0), (1.0, 2.0), 1.9999989998361335548e-6),
    ],
    finite="p.scale >= q.scale",
    reference="Gil, Alajaji & Linder (2013), table 3; split derived in the docstring",
    replaces="torch loses all digits where p is close to q",
)
def kl_pareto_pareto(p: Parameters, q: Parameters) -> Tensor:
    """KL(Pareto(s, a) || Pareto(t, b)) = [b/a - 1 - log(b/a)] + b log(s/t), for s >= t."""
    outside = p["scale"] < q["scale"]
    s, t = (torch.where(outside, 1.0, x["scale"]) for x in (p, q))
    value = itakura_saito(q["alpha"], p["alpha"]) + q["alpha"] * torch.log1p((s - t) / t)
    return torch.where(outside, math.inf, value)
