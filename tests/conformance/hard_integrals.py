"""Integrals that are hard for a rule of quadrature: each has a name, and a tag that says why.

A new difficulty gets both here, and joins the tests of `test_integrate`.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch.distributions import Distribution, constraints

from .cases import FAMILIES, make
from .reference.extended_precision.maps import Map
from .reference.random_cells import Cell

#: "end" is for a density with a pole or a zero at an end of its support.
TAGS = ("smooth", "kink", "heavy tail", "narrow", "end")


@dataclass(frozen=True)
class Hard:
    """An integral of declared families, whose truth and slopes the cell computes at 18 digits."""

    tag: str
    cell: Cell


def _hard(tag: str, p: str, a: dict, q: str, b: dict, *maps: Map) -> Hard:
    return Hard(tag, Cell(FAMILIES[p], FAMILIES[q], a, b, torch.float64, maps))


def _loc_scale(loc: float, scale: float) -> dict[str, float]:
    return {"loc": loc, "scale": scale}


_UNIT, _OFF = _loc_scale(0.0, 1.0), _loc_scale(0.3, 1.2)
_SKEW = {**_OFF, "asymmetry": 2.0}

HARD = {
    "normal, logistic": _hard("smooth", "Normal", _OFF, "Logistic", _loc_scale(0.5, 0.7)),
    "tanh of a normal, logistic": _hard(
        "smooth", "Normal", _OFF, "Logistic", _loc_scale(0.5, 0.7), Map("tanh")
    ),
    "gumbel, far logistic": _hard("smooth", "Gumbel", _OFF, "Logistic", _loc_scale(-20.0, 0.7)),
    "laplace, logistic": _hard("kink", "Laplace", _OFF, "Logistic", _UNIT),
    "softplus of a laplace, half cauchy": _hard(
        "kink", "Laplace", _OFF, "HalfCauchy", {"scale": 0.8}, Map("softplus")
    ),
    "tanh of a normal, laplace": _hard(
        "kink", "Normal", _OFF, "Laplace", _loc_scale(0.5, 0.7), Map("tanh")
    ),
    "softplus of a normal, laplace": _hard(
        "kink", "Normal", _OFF, "Laplace", _loc_scale(0.5, 0.7), Map("softplus")
    ),
    "interval of a normal, laplace": _hard(
        "kink", "Normal", _OFF, "Laplace", _loc_scale(0.5, 0.7),
        Map("sigmoid"), Map("affine", _loc_scale(-1.0, 3.0)),
    ),
    "asymmetric laplace, skew logistic": _hard(
        "kink", "AsymmetricLaplace", {**_OFF, "asymmetry": 3.0}, "SkewLogistic", _SKEW
    ),
    "kink in a far tail": _hard(
        "kink", "SkewLogistic", _SKEW, "Laplace", _loc_scale(15.0, 0.5)
    ),
    "student of df 0.05": _hard(
        "heavy tail", "StudentT", {"df": 0.05, **_UNIT}, "Cauchy", _OFF
    ),
    "log normal, half cauchy": _hard(
        "heavy tail", "LogNormal", _loc_scale(0.0, 6.0), "HalfCauchy", {"scale": 1.0}
    ),
    "pareto of alpha 0.05": _hard(
        "heavy tail", "Pareto", {"scale": 1.0, "alpha": 0.05}, "HalfCauchy", {"scale": 2.0}
    ),
    "moment next to infinity": _hard(
        "heavy tail", "Pareto", {"scale": 1.0, "alpha": 1.02}, "Gumbel", _loc_scale(0.0, 1.0)
    ),
    "narrow q": _hard("narrow", "Normal", _OFF, "Logistic", _loc_scale(0.5, 1e-4)),
    "narrow q with a kink": _hard(
        "narrow", "SkewLogistic", _SKEW, "Laplace", _loc_scale(0.5, 7e-4)
    ),
    "narrow q with heavy tails": _hard("narrow", "Normal", _OFF, "Cauchy", _loc_scale(0.5, 1e-4)),
    "narrow p": _hard("narrow", "Normal", _loc_scale(0.3, 1e-6), "Cauchy", _UNIT),
    "narrow beta": _hard(
        "narrow", "Beta", {"concentration1": 3e3, "concentration0": 7e3}, "Kumaraswamy",
        {"concentration1": 2.0, "concentration0": 3.0},
    ),
    "pole at 0": _hard(
        "end", "Gamma", {"concentration": 0.02, "rate": 1.0}, "HalfCauchy", {"scale": 1.0}
    ),
    "poles at both ends": _hard(
        "end", "Beta", {"concentration1": 0.05, "concentration0": 0.02}, "Kumaraswamy",
        {"concentration1": 0.3, "concentration0": 4.0},
    ),
    "zero of q at an end": _hard(
        "end", "HalfNormal", {"scale": 1.0}, "FisherSnedecor", {"df1": 60.0, "df2": 5.0}
    ),
    "relaxed at a low temperature": _hard(
        "end", "RelaxedBernoulli", {"temperature": 0.05, "probs": 0.3}, "Kumaraswamy",
        {"concentration1": 2.0, "concentration0": 3.0},
    ),
}  # fmt: skip


def over_hard(*tags: str, short: Collection[str] = ()) -> pytest.MarkDecorator:
    """Parametrise a test by the hard integrals with these tags, or by all.

    Args:
        tags: of the integrals.
        short: names of those that are known to fail the test.
    """
    chosen = [
        pytest.param(hard, id=name, marks=[pytest.mark.xfail(strict=True)] * (name in short))
        for name, hard in HARD.items()
        if hard.tag in (tags or TAGS)
    ]
    return pytest.mark.parametrize("hard", chosen)


class LogProbOnly(Distribution):
    """A distribution of a class that nobody declared: it has a log density and a support."""

    arg_constraints: ClassVar = {}

    def __init__(self, base: Distribution) -> None:
        self.base = base
        super().__init__(base.batch_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return self.base.support

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        return self.base.log_prob(value)


class Wavy(LogProbOnly):
    """A standard normal times 1 + depth sin(frequency x), which oscillates.

    KL(Normal(0, 1) || this) is -log((1 + sqrt(1 - depth^2)) / 2), the mean over one period, but
    for exp(-frequency^2 / 2).
    """

    def __init__(self, frequency: float, depth: float) -> None:
        self.frequency, self.depth = frequency, depth
        super().__init__(make(FAMILIES["Normal"], _UNIT))

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        wave = self.depth * torch.sin(self.frequency * value)
        return self.base.log_prob(value) + torch.log1p(wave)

    def kl_from_normal(self) -> float:
        return -math.log((1 + math.sqrt(1 - self.depth**2)) / 2)
