"""Families whose law has structure: multivariate normals, Dirichlets."""

from . import dirichlet, multivariate_normal

__all__ = ["dirichlet", "multivariate_normal"]
