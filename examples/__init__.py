"""Worked examples; each runs with ``python -m examples.<name>``."""
