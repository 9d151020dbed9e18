"""Univariate densities on a line: integrals over it, and the largest ratio of two of them."""
