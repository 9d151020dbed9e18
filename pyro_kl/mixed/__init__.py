"""Formulas of single pairs of two different families that no rule derives."""

from . import cauchy, uniform

__all__ = ["cauchy", "uniform"]
