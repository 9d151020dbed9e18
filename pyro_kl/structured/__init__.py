"""Families whose law has structure: vectors, matrices, directions, counts of categories."""

from . import (
    dirichlet,
    gaussian_products,
    gaussian_scale_mixture,
    lkj,
    logistic_normal,
    low_rank_multivariate_normal,
    multinomial,
    multivariate_normal,
    multivariate_student_t,
    projected_normal,
    relaxed_one_hot,
    torus,
    von_mises_3d,
    wishart,
)

__all__ = [
    "dirichlet",
    "gaussian_products",
    "gaussian_scale_mixture",
    "lkj",
    "logistic_normal",
    "low_rank_multivariate_normal",
    "multinomial",
    "multivariate_normal",
    "multivariate_student_t",
    "projected_normal",
    "relaxed_one_hot",
    "torus",
    "von_mises_3d",
    "wishart",
]
