"""AsymmetricLaplace(loc, scale, asymmetry): two exponentials back to back."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from pyro.distributions import AsymmetricLaplace
from torch import Tensor

from ...numerics.dtypes import Parameters
from ...numerics.special.divergences import bernoulli_excess, itakura_saito
from ...numerics.special.incomplete import mean_shortfall
from ...numerics.special.logarithms import expm1mx_of_distance
from ...registry.family import REAL, Family, Moment
from ...registry.line import Line, Point, from_line
from ...registry.register import declare, formula

#: Where the peaks are further apart, in scales of p, the KL is not small.
_FAR = 1e-3


def by_sides(value: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Turn a function of the scales of both sides into one of scale and asymmetry.

    The class has attributes for them, but rounds these to the parameters' dtype.
    """

    @wraps(value)  # with the signature, which names the moments that a cross-entropy needs
    def of_asymmetry(*arguments: Any, loc: Tensor, scale: Tensor, asymmetry: Tensor) -> Tensor:
        return value(*arguments, loc=loc, left=scale * asymmetry, right=scale / asymmetry)

    return of_asymmetry


@by_sides
def mean_excess(m: Tensor, /, loc: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """E (x - m)+."""
    total, d = left + right, loc - m
    below = d <= 0  # relu would have the derivatives of neither side at 0
    beyond = right / total * right * torch.exp(torch.where(below, d, 0.0) / right)
    before = (
        d + (right - left) + left / total * left * torch.exp(torch.where(below, 0.0, -d) / left)
    )
    return torch.where(below, beyond, before)


@by_sides
def log_laplace(t: Tensor, /, loc: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Log E exp(-t x), for t < 1 / left."""
    return -t * loc - torch.log1p(-t * left) - torch.log1p(t * right)


@by_sides
def cross_entropy(
    mean: Tensor,
    mean_excess: Callable[[Tensor], Tensor],
    /,
    loc: Tensor,
    left: Tensor,
    right: Tensor,
) -> Tensor:
    above = mean_excess(loc)
    below = mean_shortfall(above, mean - loc)
    return torch.log(left + right) + above / right + below / left


@by_sides
def log_density_at(point: Point, /, loc: Tensor, left: Tensor, right: Tensor) -> Tensor:
    distance = point.x - loc
    length = torch.where(distance < 0, left, right)
    return -distance.abs() / length - torch.log(left + right)


asymmetric_laplace = declare(
    Family(
        AsymmetricLaplace,
        parameters=("loc", "scale", "asymmetry"),
        support=REAL,
        density="exp(-asymmetry**sign(z) * Abs(z)) / (scale * (asymmetry + 1 / asymmetry))",
        examples=((0.0, 1.0, 1.5), (1.0, 0.4, 0.7), (-3.0, 4.0, 1.0)),
        reference="Kotz, Kozubowski & Podgorski (2001), ch. 3",
        kinks=lambda loc, **_: (loc,),
        entropy=by_sides(lambda loc, left, right: 1 + torch.log(left + right)),
        moments={
            "mean": Moment(by_sides(lambda loc, left, right: loc + right - left)),
            "variance": Moment(by_sides(lambda loc, left, right: left**2 + right**2)),
            "mean_excess": Moment(mean_excess),
            "log_laplace": Moment(
                log_laplace,
                argument_below=by_sides(lambda loc, left, right: 1 / left),
                below="1 / p.left_scale",
            ),
        },
        cross_entropy=cross_entropy,
        line=Line(
            log_density_at,
            at=from_line,
            place=lambda x, **_: x,
            centre=lambda loc, **_: loc,
            width=by_sides(lambda loc, left, right: torch.maximum(left, right)),
            growth=(1.0, 1.0),
            rate=(
                by_sides(lambda loc, left, right: 1 / left),
                by_sides(lambda loc, left, right: 1 / right),
            ),
        ),
    )
)


@formula(
    asymmetric_laplace,
    asymmetric_laplace,
    cases=[
        ((0.0, 1.0, 1.5), (1.0, 0.4, 0.7), 4.857152816404698230685),
        ((0.0, 2.0, 1.5), (0.000001, 2.0, 1.5), 1.249999687500058480612e-13),
        ((3.0, 2.0, 0.5), (3.0, 2.0, 0.5009765625), 3.123647632752350937185e-6),
        ((0.5, 1.0, 2.0), (-4.0, 3.0, 0.25), 1.118145448737172584335),
    ],
    reference="chain rule: on which side, and then how far; derived in the docstring",
)
def kl_asymmetric_laplaces(p: Parameters, q: Parameters) -> Tensor:
    """KL of two asymmetric Laplaces, with scales l, r at m and L, R at mu, and t = l + r.

    For m = mu it is the KL of the side (a Bernoulli) and of the distance (two Exponentials):

        K = KL(Bernoulli(r/t) || Bernoulli(R/(L + R))) + (r/t) IS(r, R) + (l/t) IS(l, L)

    For d = mu - m > 0 the following is added, with e(x) = exp(-x) - 1 + x; for d < 0 it is the
    same with the sides exchanged:

        (r/t) r (1/R + 1/L) e(d/r) + (d/t) (l/L - r/R)

    These cancel where the peaks are far apart. There the KL is computed as

        log((L + R)/t) - 1 + E (x - mu)+ / R + E (mu - x)+ / L
    """
    left, right, q_left, q_right = torch.broadcast_tensors(
        p["scale"] * p["asymmetry"],
        p["scale"] / p["asymmetry"],
        q["scale"] * q["asymmetry"],
        q["scale"] / q["asymmetry"],
    )
    total, d = left + right, q["loc"] - p["loc"]
    same_peak = (
        bernoulli_excess(right, left, q_right, q_left)
        + right * itakura_saito(right, q_right)
        + left * itakura_saito(left, q_left)
    )
    ahead, behind = torch.where(d > 0, right, left), torch.where(d > 0, left, right)
    beyond = ahead * ahead * (1 / q_left + 1 / q_right) * expm1mx_of_distance(d / ahead)
    tilt = d * ((left - q_left) / q_left - (right - q_right) / q_right)
    close = (same_peak + beyond + tilt) / total

    distance = d.abs()
    far = (distance > ahead) & (distance > _FAR * total)
    few = ahead / total * ahead * torch.exp(-distance / ahead)
    most = few + (distance - ahead) + behind
    q_ahead, q_behind = torch.where(d > 0, q_right, q_left), torch.where(d > 0, q_left, q_right)
    sides = few / q_ahead + most / q_behind
    return torch.where(far, torch.log((q_left + q_right) / total) - 1 + sides, close)
