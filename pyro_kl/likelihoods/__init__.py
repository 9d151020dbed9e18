"""Likelihoods of a Normal linear predictor: one file each, and one line here."""

from .bernoulli_logit import BERNOULLI_LOGIT
from .bernoulli_probit import BERNOULLI_PROBIT
from .binomial import BINOMIAL
from .categorical import CATEGORICAL
from .gaussian import GAUSSIAN
from .likelihood import Expectation, Likelihood
from .negative_binomial import NEGATIVE_BINOMIAL
from .poisson import POISSON

#: The table: dispatch, tests and documentation read it.
LIKELIHOODS = (
    BERNOULLI_LOGIT,
    BERNOULLI_PROBIT,
    BINOMIAL,
    POISSON,
    GAUSSIAN,
    NEGATIVE_BINOMIAL,
    CATEGORICAL,
)

__all__ = [
    "BERNOULLI_LOGIT",
    "BERNOULLI_PROBIT",
    "BINOMIAL",
    "CATEGORICAL",
    "GAUSSIAN",
    "LIKELIHOODS",
    "NEGATIVE_BINOMIAL",
    "POISSON",
    "Expectation",
    "Likelihood",
]
