"""Models fitted by variational inference with the KL divergences of `pyro_kl`."""
