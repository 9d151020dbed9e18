"""Univariate families, one file each; a new one is its file and one line here."""

# isort: off
from . import normal
from . import gamma
from . import lognormal, exponential, inverse_gamma, half_normal, beta, bernoulli, categorical
# isort: on

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
