"""Generalised linear models: exact variational inference, deterministic and out of core."""
