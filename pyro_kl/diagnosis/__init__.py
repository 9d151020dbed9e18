"""How far a guide is from the posterior: the question about a fitted model and guide."""
