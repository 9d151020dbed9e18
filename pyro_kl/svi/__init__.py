"""Stochastic variational inference: steps that cost what their arithmetic costs."""
