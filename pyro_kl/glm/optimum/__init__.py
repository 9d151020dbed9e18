"""The optimum of the ELBO over a family of Gaussians."""
