"""The printed form of a posterior: a line for each coefficient, and the terms of the ELBO."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ...results.table import SHOWN, Table
from .coefficients import marginals

if TYPE_CHECKING:
    from .posterior import Posterior

#: The length of a name, which the columns of numbers leave of a line.
NAME = 26
#: The quantile of the standard Normal for intervals of 95 %.
NORMAL_975 = 1.959963984540054

HEADER = ["coefficient", "prior sd", "mean", "sd", "2.5 %", "97.5 %", "KL"]


def rows(posterior: Posterior) -> list[dict[str, Any]]:
    """One dictionary for each coefficient, the bias first."""
    mean, sd = posterior.loc, posterior.covariance.marginal_scale
    columns = {
        "prior_sd": marginals(posterior.prior.distribution()).stddev,
        "mean": mean,
        "sd": sd,
        "lower": mean - NORMAL_975 * sd,
        "upper": mean + NORMAL_975 * sd,
        "kl": posterior.coefficient_kls.value,
    }
    numbers = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [
        {"coefficient": name, **dict(zip(columns, row, strict=True))}
        for name, row in zip(("bias", *posterior.names), numbers, strict=True)
    ]


def table(posterior: Posterior) -> Table:
    """What is printed of a posterior."""
    return Table(HEADER, _cells(posterior), "lrrrrrr", _summary(posterior))


def _cells(posterior: Posterior) -> list[list[str]]:
    """Of a long table the bias and the coefficients of the largest KL."""
    every = rows(posterior)
    largest = sorted(range(1, len(every)), key=lambda i: -every[i]["kl"])[: SHOWN - 1]
    return [
        [_short(every[i]["coefficient"]), *(_number(x) for x in list(every[i].values())[1:])]
        for i in sorted([0, *largest])
    ]


def _summary(posterior: Posterior) -> list[str]:
    joint, each = posterior.kl, posterior.coefficient_kls
    how = joint.method if joint.method == each.method else f"{joint.method}, {each.method}"
    classes = posterior.classes
    hidden = len(posterior.names) + 1 - SHOWN
    beta = "" if posterior.beta == 1 else f"; beta {posterior.beta:g}"
    return [
        *([f"... and {hidden:,} coefficients of smaller KL"] if hidden > 0 else []),
        f"ELBO {posterior.elbo:.4f} = log likelihood {posterior.expected_log_likelihood:.4f} "
        f"- KL {float(joint):.4f}; nats{beta}",
        f"KL by {how}; those of single coefficients add up to {float(each.value.sum()):.4f}",
        f"{posterior.num_rows:,} rows; {posterior.likelihood} likelihood; "
        f"{_words(posterior.prior)}; {_words(posterior.covariance)}",
        *([] if classes is None else [f"1 stands for {classes[1]!r}, 0 for {classes[0]!r}"]),
    ]


def _words(part: object) -> str:
    """The name of a class as words: "low rank covariance"."""
    return re.sub("(?<=.)(?=[A-Z])", " ", type(part).__name__).lower()


def _short(name: str) -> str:
    return name if len(name) <= NAME else name[: NAME - 3] + "..."


def _number(x: float) -> str:
    """Eight characters at most."""
    return f"{x:.3f}" if x == 0 or 1e-3 <= abs(x) < 1e3 else f"{x:.1e}"
