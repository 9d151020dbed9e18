"""Exact variational inference for generalised linear models, deterministic."""

from .logistic import LogisticRegression, ProbitRegression
from .poisson import PoissonRegression
from .posterior.posterior import Posterior
from .tables import TableError, read_table

__all__ = [
    "LogisticRegression",
    "PoissonRegression",
    "Posterior",
    "ProbitRegression",
    "TableError",
    "read_table",
]
