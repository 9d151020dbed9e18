"""Univariate families, one file each; a new one is its file and one line here."""

from . import (
    asymmetric_laplace,
    bernoulli,
    beta,
    categorical,
    cauchy,
    exponential,
    gamma,
    gumbel,
    half_cauchy,
    half_normal,
    inverse_gamma,
    laplace,
    logistic,
    lognormal,
    normal,
    pareto,
    skew_logistic,
    soft_laplace,
    weibull,
)
