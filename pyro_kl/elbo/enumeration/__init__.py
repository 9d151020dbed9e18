"""The ELBO of models with discrete latents that are enumerated."""
