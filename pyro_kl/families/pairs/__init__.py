"""Formulas for pairs of two different families that no rule derives."""

from . import affine_beta, bernoulli, cauchy, exponential_gamma, uniform
