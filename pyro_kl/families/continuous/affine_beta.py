"""AffineBeta(concentration1, concentration0, loc, scale): a Beta from loc to loc + scale."""

from __future__ import annotations

import torch
from pyro.distributions import AffineBeta
from torch import Tensor

from ...numerics.special.gamma import log_beta
from ...registry.family import Family, Moment, Support
from ...registry.line import Line, Point, interval
from ...registry.register import declare
from . import beta

FROM_LOC_TO_END = Support(
    "interval from loc to loc + scale",
    discrete=False,
    low=lambda concentration1, concentration0, loc, scale: loc,
    high=lambda concentration1, concentration0, loc, scale: loc + scale,
)


def entropy(concentration1: Tensor, concentration0: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return beta.entropy(concentration1, concentration0) + torch.log(scale)


def mean(concentration1: Tensor, concentration0: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return loc + scale * beta.mean(concentration1, concentration0)


def variance(concentration1: Tensor, concentration0: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return scale**2 * beta.variance(concentration1, concentration0)


def log_density_at(
    point: Point, concentration1: Tensor, concentration0: Tensor, loc: Tensor, scale: Tensor
) -> Tensor:
    a, b, log_scale = concentration1, concentration0, torch.log(scale)
    up, down = point.log_over(loc) - log_scale, point.log_under(loc + scale) - log_scale
    return (a - 1) * up + (b - 1) * down - log_beta(a, b) - log_scale


affine_beta = declare(
    Family(
        AffineBeta,
        parameters=("concentration1", "concentration0", "loc", "scale"),
        support=FROM_LOC_TO_END,
        density="z**(concentration1 - 1) * (1 - z)**(concentration0 - 1) / (scale * "
        "beta(concentration1, concentration0))",
        examples=((2.0, 3.0, 0.25, 0.5), (1.5, 4.0, -1.0, 4.0), (60.0, 9.0, 2.25, 0.5)),
        reference="Johnson, Kotz & Balakrishnan (1995), ch. 25",
        entropy=entropy,
        moments={"mean": Moment(mean), "variance": Moment(variance)},
        safe={"concentration1": 2.0, "concentration0": 3.0, "loc": 0.0, "scale": 1.0},
        line=Line(
            log_density_at,
            at=lambda y, loc, scale, **_: interval(y, loc, loc + scale),
            place=lambda x, loc, scale, **_: torch.logit((x - loc) / scale),
            centre=beta.logit_centre,
            width=beta.logit_width,
            bend=beta.logit_bend,
            index=beta.POWERS,
        ),
    )
)
