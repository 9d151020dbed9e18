"""Passes over rows: where the rows are, what is summed over them, and by whom."""
