"""Whether a fit is calibrated: the question about a model and a way to fit it."""
