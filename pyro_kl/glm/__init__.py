"""Exact variational inference for generalised linear models, deterministic."""
