"""FisherSnedecor(df1, df2): df2/df1 times the ratio of two Gammas of rate 1."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import FisherSnedecor

from ...numerics.special.gamma import log_beta, stirling, stirling_slope, trigamma
from ...registry.family import POSITIVE, Family, Moment, above
from ...registry.line import Distance, Point, positive_line, softplus
from ...registry.register import declare


def entropy(df1: Tensor, df2: Tensor) -> Tensor:
    a, b = 0.5 * df1, 0.5 * df2
    n, of_b = a + b, stirling_slope(b)
    return (
        stirling(a) + stirling(b) - stirling(n)
        - (a - 1) * (stirling_slope(a) - of_b) + n * (stirling_slope(n) - of_b)
    )  # fmt: skip


def mean(df1: Tensor, df2: Tensor) -> Tensor:
    return df2 / (df2 - 2)


def variance(df1: Tensor, df2: Tensor) -> Tensor:
    return 2 * (df2 / (df2 - 2)) ** 2 * (df1 + df2 - 2) / (df1 * (df2 - 4))


def mean_log(df1: Tensor, df2: Tensor) -> Tensor:
    return torch.log(df2 / df1) + torch.digamma(0.5 * df1) - torch.digamma(0.5 * df2)


def mean_inverse(df1: Tensor, df2: Tensor) -> Tensor:
    return df1 / (df1 - 2)


def log_mean_power(k: Tensor, /, df1: Tensor, df2: Tensor) -> Tensor:
    """Log E x^k, for k < df2 / 2."""
    a, b = 0.5 * df1, 0.5 * df2
    up = torch.lgamma(a + k) - torch.lgamma(a)
    return k * torch.log(df2 / df1) + up + torch.lgamma(b - k) - torch.lgamma(b)


def log_density_at(point: Point, df1: Tensor, df2: Tensor) -> Tensor:
    a, b = 0.5 * df1, 0.5 * df2
    log_z = point.log_over(0.0) + torch.log(df1 / df2)
    return a * log_z - (a + b) * softplus(log_z) - point.log_over(0.0) - log_beta(a, b)


fisher_snedecor = declare(
    Family(
        FisherSnedecor,
        parameters=("df1", "df2"),
        support=POSITIVE,
        density="(df1 / df2)**(df1 / 2) * x**(df1 / 2 - 1) / (beta(df1 / 2, df2 / 2) * (1 + df1"
        " / df2 * x)**((df1 + df2) / 2))",
        examples=((4.0, 7.0), (1.5, 3.0), (40.0, 90.0)),
        reference="Johnson, Kotz & Balakrishnan (1995), ch. 27",
        entropy=entropy,
        moments={
            "mean": Moment(mean, finite=above(df2=2)),
            "variance": Moment(variance, finite=above(df2=4)),
            "mean_log": Moment(mean_log),
            "variance_log": Moment(lambda df1, df2: trigamma(0.5 * df1) + trigamma(0.5 * df2)),
            "mean_inverse": Moment(mean_inverse, finite=above(df1=2)),
            "log_mean_power": Moment(
                log_mean_power, argument_below=lambda df1, df2: 0.5 * df2, below="p.df2 / 2"
            ),
        },
        line=positive_line(
            log_density_at,
            centre=mean_log,
            width=lambda df1, df2: torch.sqrt(trigamma(0.5 * df1) + trigamma(0.5 * df2)),
            bend=lambda df1, df2: (torch.log(df2) - torch.log(df1), torch.ones_like(df1)),
            index=(lambda df1, df2: 0.5 * df1, lambda df1, df2: 0.5 * df2),
            distance=lambda df1, df2: Distance(torch.zeros_like(df2), None, mean(df1, df2)),
        ),
    )
)
