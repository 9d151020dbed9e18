"""Chi2(df): the Gamma of concentration df / 2 and rate 1/2."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Chi2

from ...registry.family import Moment, above, special_case
from ...registry.register import declare
from .gamma import gamma


def as_gamma(df: Tensor) -> dict[str, Tensor]:
    return {"concentration": 0.5 * df, "rate": torch.full_like(df, 0.5)}


chi2 = declare(
    special_case(
        gamma,
        as_gamma,
        distribution=Chi2,
        parameters=("df",),
        examples=({"df": 3.0}, {"df": 0.5}, {"df": 90.0}),
        reference="Johnson, Kotz & Balakrishnan (1994), ch. 18",
        moments={"mean_inverse": Moment(lambda df: 1 / (df - 2), finite=above(df=2))},
    )
)
