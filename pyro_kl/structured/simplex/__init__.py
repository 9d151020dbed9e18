"""Distributions on the simplex and on counts of categories."""
