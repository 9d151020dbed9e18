"""Distributions of vectors, matrices, directions, sequences and trees; importing registers."""

from .combinatorial import coalescent, empirical, matching, spanning_tree
from .directional import projected_normal, torus, von_mises_3d
from .gaussian import (
    gaussian_scale_mixture,
    grouped_normal_normal,
    low_rank_multivariate_normal,
    multivariate_normal,
    multivariate_student_t,
    products,
    renyi,
)
from .matrices import lkj, wishart
from .sequences import gamma_gaussian_hmm, gaussian_hmm
from .simplex import dirichlet, logistic_normal, multinomial, relaxed_one_hot
