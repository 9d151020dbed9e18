"""Discrete univariate families, one file each."""
