"""Integrals over a line: nodes, rule, error, gradient."""
