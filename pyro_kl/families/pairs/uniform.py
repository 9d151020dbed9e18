"""KL(Uniform || q) for families q whose cross-entropy has a closed form for a uniform p only."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...numerics.dtypes import Parameters
from ...numerics.special.gamma import log_beta
from ...numerics.special.log_uniform import mean_log1p_square, mean_log_over_r
from ...numerics.special.logarithms import log1p_ratio
from ...registry.register import formula
from ..continuous.cauchy import cauchy
from ..continuous.fisher_snedecor import fisher_snedecor
from ..continuous.generalized_pareto import generalized_pareto, upper_end
from ..continuous.half_cauchy import half_cauchy
from ..continuous.student_t import minus_log_normaliser, student_t
from ..continuous.uniform import entropy, mean, mean_log, uniform


def _mean_log_tail(p: Parameters, loc: Tensor | float, width: Tensor) -> Tensor:
    """E log(1 + ((x - loc) / width)^2)."""
    return mean_log1p_square((p["low"] - loc) / width, (p["high"] - p["low"]) / width)


@formula(
    uniform,
    cauchy,
    cases=[
        ((-1.0, 4.0), (0.5, 1.0), 0.60780291543520121978),
        ((2.0, 2.001), (0.0, 0.3), 10.665491858872660244),
        ((-10000.0, 300000.0), (1.0, 0.2), 13.113465750738370554),
    ],
    reference="by parts; numerics.special.log_uniform",
)
def kl_uniform_cauchy(p: Parameters, q: Parameters) -> Tensor:
    """KL(Uniform(a, b) || Cauchy(m, t)) = log(pi t) + E log(1 + ((x - m)/t)^2) - log(b - a)."""
    tail = _mean_log_tail(p, q["loc"], q["scale"])
    return torch.log(math.pi * q["scale"]) + tail - entropy(**p)


@formula(
    uniform,
    half_cauchy,
    cases=[
        ((0.0, 1.0), (2.0,), 1.2224638731668343948),
        ((30.0, 31.0), (0.1,), 9.589542329263586802),
    ],
    finite="p.low >= 0",
    reference="by parts; numerics.special.log_uniform",
)
def kl_uniform_half_cauchy(p: Parameters, q: Parameters) -> Tensor:
    """The KL to a Cauchy with loc 0, minus log 2: a HalfCauchy has twice its density."""
    outside = p["low"] < 0
    p = uniform.unless(outside, p)
    value = torch.log(0.5 * math.pi * q["scale"]) + _mean_log_tail(p, 0.0, q["scale"])
    return torch.where(outside, math.inf, value - entropy(**p))


@formula(
    uniform,
    student_t,
    cases=[
        ((-1.0, 4.0), (3.0, 0.5, 1.0), 0.53234676746651865455),
        ((2.0, 2.001), (0.5, 0.0, 0.3), 10.388616923127500263),
        ((0.0, 1.0), (100000000.0, 0.5, 0.3), 0.1779286951133046601),
    ],
    reference="by parts; numerics.special.log_uniform",
)
def kl_uniform_student_t(p: Parameters, q: Parameters) -> Tensor:
    """KL(Uniform || StudentT(df, m, t)), with E log(1 + ((x - m)/t)^2 / df)."""
    tail = _mean_log_tail(p, q["loc"], q["scale"] * torch.sqrt(q["df"]))
    constant = minus_log_normaliser(q["df"], q["scale"])
    return constant + 0.5 * (q["df"] + 1) * tail - entropy(**p)


@formula(
    uniform,
    generalized_pareto,
    cases=[
        ((0.0, 1.0), (0.0, 1.0, 0.25), 0.57858878285524389416),
        ((0.5, 2.5), (0.5, 1.0, -0.5), 0.30685281944005469058),
        ((3.0, 3.25), (1.0, 2.0, 0.0), 3.1419415416798359283),
        ((0.0, 50.0), (-1.0, 2.0, 1e-09), 9.781124077590133883),
        ((0.0, 50.0), (-1.0, 2.0, 3.0), 1.4007830771435408321),
    ],
    finite="p's support is inside q's",
    reference="by parts; derived in the docstring",
)
def kl_uniform_generalized_pareto(p: Parameters, q: Parameters) -> Tensor:
    """KL(Uniform || GeneralizedPareto(loc, s, xi)), without 1/xi, for xi = 0 is allowed.

    With z = (x - loc)/s, c = 1 + xi E z and r = xi h/c for half the width h of z,

        E log(1 + xi z) / xi = E z log(c)/(c - 1) + (h/c) E[log(1 + r u)] / r
    """
    outside = (q["loc"] > p["low"]) | (p["high"] > upper_end(**q))
    p, q = uniform.unless(outside, p), generalized_pareto.unless(outside, q)
    xi = q["concentration"]
    low, high = (p["low"] - q["loc"]) / q["scale"], (p["high"] - q["loc"]) / q["scale"]
    middle, half = 0.5 * (low + high), 0.5 * (p["high"] - p["low"]) / q["scale"]
    centre = 1 + xi * middle
    bend = mean_log_over_r(xi * half / centre, (1 + xi * low) / centre, (1 + xi * high) / centre)
    tail = middle * log1p_ratio(xi * middle) + half / centre * bend
    value = torch.log(q["scale"]) + (1 + xi) * tail - entropy(**p)
    return torch.where(outside, math.inf, value)


@formula(
    uniform,
    fisher_snedecor,
    cases=[
        ((0.0, 1.0), (4.0, 7.0), 0.6986662072129440427),
        ((2.0, 3.0), (1.5, 3.0), 2.5248191190894588493),
        ((0.95, 1.0), (40.0, 90.0), 2.5859398756510986606),
    ],
    finite="p.low >= 0",
    reference="by parts; numerics.special.log_uniform",
)
def kl_uniform_fisher_snedecor(p: Parameters, q: Parameters) -> Tensor:
    """KL(Uniform || FisherSnedecor(2a, 2b)), with E log x and E log(1 + a x / b)."""
    outside = p["low"] < 0
    p = uniform.unless(outside, p)
    a, b, c = 0.5 * q["df1"], 0.5 * q["df2"], q["df1"] / q["df2"]
    low, high = 1 + c * p["low"], 1 + c * p["high"]
    centre = 0.5 * (low + high)
    r = 0.5 * c * (p["high"] - p["low"]) / centre
    tail = torch.log1p(c * mean(**p)) + r * mean_log_over_r(r, low / centre, high / centre)
    value = log_beta(a, b) - a * torch.log(c) - (a - 1) * mean_log(**p) + (a + b) * tail
    return torch.where(outside, math.inf, value - entropy(**p))
