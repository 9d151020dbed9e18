"""Families whose law has structure: vectors, matrices, directions, sequences, trees."""

from . import (
    coalescent,
    dirichlet,
    empirical,
    gaussian_hmm,
    gaussian_products,
    grouped_normal_normal,
    lkj,
    logistic_normal,
    low_rank_multivariate_normal,
    matching,
    multivariate_normal,
    spanning_tree,
    von_mises_3d,
    wishart,
)

__all__ = [
    "coalescent",
    "dirichlet",
    "empirical",
    "gaussian_hmm",
    "gaussian_products",
    "grouped_normal_normal",
    "lkj",
    "logistic_normal",
    "low_rank_multivariate_normal",
    "matching",
    "multivariate_normal",
    "spanning_tree",
    "von_mises_3d",
    "wishart",
]
