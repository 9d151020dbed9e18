"""Continuous univariate families, one file each."""
