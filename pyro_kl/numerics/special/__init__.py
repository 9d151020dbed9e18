"""Special functions that torch lacks or computes with too few digits."""
