"""What a fit leaves: a Gaussian with its KLs, its Pyro guide and its file."""
