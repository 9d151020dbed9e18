"""Families whose law has structure: multivariate normals, Dirichlets, sequences, trees."""

from . import (
    coalescent,
    dirichlet,
    gaussian_hmm,
    gaussian_products,
    grouped_normal_normal,
    matching,
    multivariate_normal,
    spanning_tree,
)

__all__ = [
    "coalescent",
    "dirichlet",
    "gaussian_hmm",
    "gaussian_products",
    "grouped_normal_normal",
    "matching",
    "multivariate_normal",
    "spanning_tree",
]
