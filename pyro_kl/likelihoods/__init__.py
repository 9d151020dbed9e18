"""Likelihoods of a Normal linear predictor: one file each, and one line here."""

from .bernoulli_logit import BERNOULLI_LOGIT
from .bernoulli_probit import BERNOULLI_PROBIT
from .gaussian import GAUSSIAN
from .likelihood import Expectation, Likelihood
from .poisson import POISSON

#: The table: dispatch, tests and documentation read it.
LIKELIHOODS = (BERNOULLI_LOGIT, BERNOULLI_PROBIT, POISSON, GAUSSIAN)

__all__ = [
    "BERNOULLI_LOGIT",
    "BERNOULLI_PROBIT",
    "GAUSSIAN",
    "LIKELIHOODS",
    "POISSON",
    "Expectation",
    "Likelihood",
]
