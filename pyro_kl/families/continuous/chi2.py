"""Chi2(df): the Gamma of concentration df / 2 and rate 1/2."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Chi2, Gamma

from ...registry.family import POSITIVE, Family, Moment, above, straight
from ...registry.line import positive_line
from ...registry.register import declare
from . import gamma


def as_gamma(df: Tensor) -> dict[str, Tensor]:
    return {"concentration": 0.5 * df, "rate": torch.full_like(df, 0.5)}


def of_df(value: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a function of a Gamma's parameters into one of df."""

    @wraps(value)  # with the signature, which names the moments that a cross-entropy needs
    def at_gamma(*arguments: Any, df: Tensor) -> Any:
        return value(*arguments, **as_gamma(df))

    return at_gamma


chi2 = declare(
    Family(
        Chi2,
        parameters=("df",),
        support=POSITIVE,
        density="x**(df / 2 - 1) * exp(-(x / 2)) / (2**(df / 2) * gamma(df / 2))",
        examples=({"df": 3.0}, {"df": 0.5}, {"df": 90.0}),
        reference="Johnson, Kotz & Balakrishnan (1994), ch. 18",
        entropy=of_df(gamma.entropy),
        moments={
            **{name: Moment(of_df(moment.value)) for name, moment in gamma.gamma.moments.items()},
            "mean_inverse": Moment(lambda df: 1 / (df - 2), finite=above(df=2)),
        },
        cross_entropy=of_df(gamma.cross_entropy),
        special_case_of=(Gamma, as_gamma),
        geometric_mixture=straight("df"),
        line=positive_line(
            of_df(gamma.log_density_at),
            centre=of_df(gamma.mean_log),
            width=of_df(gamma.log_width),
            bend=of_df(gamma.bend),
            reach=(40.0, 9.0),
            index=(lambda df: 0.5 * df, math.inf),
            growth=(0.0, 1.0),
            decay=(None, 0.5),
        ),
    )
)
