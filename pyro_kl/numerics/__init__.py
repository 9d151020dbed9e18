"""Functions of tensors; no module here imports a distribution."""
