"""Covariances of a Gaussian posterior."""
