"""The command `pyro-kl`. Nothing here imports torch before a KL is to be computed."""
