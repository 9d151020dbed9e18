"""Priors of the coefficients, their expected log densities and their scales."""
