"""Callbacks of `SVI.run` that log its steps."""
