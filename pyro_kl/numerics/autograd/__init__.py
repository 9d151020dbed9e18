"""Derivatives written by hand, and formulas recorded as one node of autograd's graph."""
