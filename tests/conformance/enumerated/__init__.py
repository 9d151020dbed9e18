"""Generated models with discrete latents that are summed out, with guides for them."""
