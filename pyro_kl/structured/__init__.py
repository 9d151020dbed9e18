"""Families whose law has structure: multivariate normals, Dirichlets."""

from . import dirichlet, gaussian_products, low_rank_multivariate_normal, multivariate_normal

__all__ = ["dirichlet", "gaussian_products", "low_rank_multivariate_normal", "multivariate_normal"]
