"""Chains and hidden Markov models."""
