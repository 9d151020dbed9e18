"""Families whose law has structure: multivariate normals, Dirichlets, sequences, trees."""

from . import dirichlet, gaussian_hmm, multivariate_normal

__all__ = ["dirichlet", "gaussian_hmm", "multivariate_normal"]
