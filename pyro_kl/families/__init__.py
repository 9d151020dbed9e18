"""Univariate families, one file each; a new one is its file and one line here.

The order matters only where a family is a special case of another one, which comes first.
"""

from . import (
    normal,
    lognormal,
    gamma,
    exponential,
    inverse_gamma,
    half_normal,
    beta,
    bernoulli,
    categorical,
)  # isort: skip

__all__ = [
    "bernoulli",
    "beta",
    "categorical",
    "exponential",
    "gamma",
    "half_normal",
    "inverse_gamma",
    "lognormal",
    "normal",
]
