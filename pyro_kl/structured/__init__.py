"""Families whose law has structure: multivariate normals."""

from . import multivariate_normal

__all__ = ["multivariate_normal"]
