"""Distributions of trees, matchings and sets of atoms."""
