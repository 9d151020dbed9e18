"""Families whose law has structure: multivariate normals, Dirichlets."""

from . import dirichlet, gaussian_products, multivariate_normal

__all__ = ["dirichlet", "gaussian_products", "multivariate_normal"]
