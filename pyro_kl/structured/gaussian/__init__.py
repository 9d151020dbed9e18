"""Multivariate Gaussians, their products and their scale mixtures."""
